"""A whole cluster in one process and one thread, from one seed: simulated time, network, disk and chance."""
