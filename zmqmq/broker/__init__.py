"""The broker. Shells: server, loop, worker, upkeep, storage, http, config, clock. Machines: the rest, above all node, produce, fetch."""
