"""The only home of ZeroMQ: sockets with their options, the broker's router, the in-process registry, wake-ups.

A socket belongs to one thread and is never touched by another. Contexts are private to their owner.
"""
