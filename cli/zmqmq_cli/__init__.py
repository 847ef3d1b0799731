"""The ``zmqmq`` command. One file per noun; each command parses, calls the library and hands rows to ``output``."""
