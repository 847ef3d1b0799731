"""``zmqmq ping``: round trips to each broker."""

from __future__ import annotations
