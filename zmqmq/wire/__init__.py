"""What travels between clients and brokers: bytes in, values out. ``docs/spec/wire.md`` is the specification."""
