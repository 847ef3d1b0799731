"""Several readers as one stream: a thread for each, which owns its reader, and a short queue between."""

from __future__ import annotations

import copy
import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from zmqmq import Message, Reader
from zmqmq.errors import BrokerUnavailable, RetriableError, ZmqmqError

MESSAGES_MAX: Final = 1000
BATCHES_MAX: Final = 8
"""Batches that wait to be printed; a full queue holds the readers back."""
JOIN_SECONDS_MAX: Final = 5.0
_PARTITION: Final = re.compile(r"\b[0-9a-f]{32}-(\d+)\b")

_Item = list[Message[bytes]] | ZmqmqError | None
Tell = Callable[[str], None]


def batches(reader: Reader[bytes], tell: Tell | None) -> Iterator[list[Message[bytes]]]:
    """What a reader reads. With ``tell`` it follows: it waits for brokers as long as it takes, and tells what is in the way;
    that none can be reached is told by others."""
    told = ""
    while True:
        try:
            yield from reader.batches(MESSAGES_MAX)
        except RetriableError as error:
            if tell is None:
                raise
            if str(error) != told and not isinstance(error, BrokerUnavailable):
                told = str(error)
                tell(f"waiting: {told} … (Ctrl-C to stop)")
        except ZmqmqError as error:
            raise named(error, reader.topic) from error
        else:
            return


def named(error: ZmqmqError, topic: str) -> ZmqmqError:
    """Brokers know partitions by the topic's id; people by its name."""
    found = copy.copy(error)
    found.args = (_PARTITION.sub(rf"{topic}-\1", str(error)),)
    return found


def merged(readers: Sequence[Reader[bytes]], idle_timeout: float | None, tell: Tell | None) -> Iterator[list[Message[bytes]]]:
    """What ``batches`` gives of all readers, as it comes. Ends when every reader ended, or when nothing came for ``idle_timeout``."""
    stopping = threading.Event()
    items: queue.Queue[_Item] = queue.Queue(BATCHES_MAX)
    threads = [threading.Thread(target=_read, args=(reader, items, stopping, tell), daemon=True) for reader in readers]
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


def _read(reader: Reader[bytes], items: queue.Queue[_Item], stopping: threading.Event, tell: Tell | None) -> None:
    """In the reader's thread: an error travels as an item, the end as None."""
    try:
        for batch in batches(reader, tell):
            items.put(batch)
            if stopping.is_set():
                return
    except ZmqmqError as error:
        items.put(error)
    else:
        items.put(None)
