"""The client: machines that decide (accumulator, sender, routing, session, fetcher, core) and thin faces over them."""
