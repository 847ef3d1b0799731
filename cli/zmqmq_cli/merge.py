"""Several readers as one stream: a thread for each, which owns its reader, and a short queue between."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from zmqmq import Message, Reader
from zmqmq.errors import ZmqmqError

MESSAGES_MAX: Final = 1000
BATCHES_MAX: Final = 8
"""Batches that wait to be printed; a full queue holds the readers back."""
JOIN_SECONDS_MAX: Final = 5.0

_Item = list[Message[bytes]] | ZmqmqError | None


def merged(readers: Sequence[Reader[bytes]], idle_timeout: float | None) -> Iterator[list[Message[bytes]]]:
    """Batches of all readers as they come. Ends when every reader ended, or when nothing came for ``idle_timeout``."""
    stopping = threading.Event()
    items: queue.Queue[_Item] = queue.Queue(BATCHES_MAX)
    threads = [threading.Thread(target=_read, args=(reader, items, stopping), daemon=True) for reader in readers]
    for thread in threads:
        thread.start()
    try:
        yield from _until_ended(items, len(readers), idle_timeout)
    finally:
        stopping.set()
        for reader in readers:
            reader.stop()
        for thread in threads:
            while thread.is_alive() and not items.empty():
                items.get_nowait()
            thread.join(JOIN_SECONDS_MAX)


def _until_ended(items: queue.Queue[_Item], running: int, idle_timeout: float | None) -> Iterator[list[Message[bytes]]]:
    while running:
        try:
            item = items.get(timeout=idle_timeout)
        except queue.Empty:
            return
        if isinstance(item, ZmqmqError):
            raise item
        if item is None:
            running -= 1
        else:
            yield item


def _read(reader: Reader[Any], items: queue.Queue[_Item], stopping: threading.Event) -> None:
    """In the reader's thread: an error travels as an item, the end as None."""
    try:
        for batch in reader.batches(MESSAGES_MAX):
            items.put(batch)
            if stopping.is_set():
                return
    except ZmqmqError as error:
        items.put(error)
    else:
        items.put(None)
