"""``zmqmq version``: this program's, and the brokers' if they answer."""

from __future__ import annotations
