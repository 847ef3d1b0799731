"""The broker. Machines: node, produce, fetch, topics, partitions. Shells: server, storage, config, http."""
