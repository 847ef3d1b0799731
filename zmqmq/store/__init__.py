"""What stays: journal, segments, indexes, checkpoints and recovery, over the ``ports.Disk`` interface.

Synchronous, without threads, clocks or chance of its own, so that it runs over a simulated disk as well.
"""
