"""Targets: journal, index and the small files. See ``targets``."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Final

import msgspec
from batch_targets import BASE, BATCHES, WHERE
from crc32c import crc32c
from fuzzing import Target
from memory import MemoryFile, OneFile
from mutating import TEXT, Trees, pack, unpack
from wire_targets import FRAME_END, TOPIC

from zmqmq import batch
from zmqmq.errors import CorruptLog, InvalidRecord, UnsupportedVersion
from zmqmq.facts import EpochStart
from zmqmq.metadata import records as metadata
from zmqmq.producer_state import ProducerEntry, ProducerStates, WrittenBatch
from zmqmq.store import formats, index, replay
from zmqmq.store.identity import Identity, load_identity
from zmqmq.store.manifest import PartitionEntry, decode_manifest, encode_manifest, encode_partition

ITEMS: Final = (
    formats.encode_item(formats.ITEM_APPEND, WHERE, len(BATCHES[0])) + BATCHES[0],
    formats.encode_log_start(WHERE, 7),
)


def entry_of(sequence: int, items: tuple[bytes, ...], generation: int = 77) -> bytes:
    length = sum(map(len, items))
    parts = formats.encode_entry(items, length=length, item_count=len(items), generation=generation, sequence=sequence, synced=sequence - 1)
    return b"".join(parts)


ENTRIES: Final = tuple(entry_of(sequence, items) for sequence, items in ((1, ITEMS), (2, ITEMS[1:]), (3, ITEMS[:1]), (4, ())))


def fix_entry(data: bytearray, chance: random.Random, at: int = 0, *, is_last: bool = True) -> int:
    size = formats.ENTRY_HEADER_BYTES
    if len(data) - at < size:
        return len(data)
    (length,) = struct.unpack_from("<I", data, at + 32)
    if length > len(data) - at - size or (is_last and chance.random() < 0.5):
        length = len(data) - at - size
        struct.pack_into("<I", data, at + 32, length)
    (generation,) = struct.unpack_from("<Q", data, at + 8)
    crc = crc32c(bytes(data[at : at + size - 4]), generation & 0xFFFFFFFF)
    struct.pack_into("<I", data, at + size - 4, crc32c(bytes(data[at + size : at + size + length]), crc))
    return at + formats.entry_size(length)


def check_entry(data: bytes) -> None:
    header = formats.decode_entry_header(data)
    if header is None or not formats.entry_is_whole(header, data):
        raise ValueError("no whole entry")
    items = list(formats.items_of(data, header))
    for item in items:
        if item.kind == formats.ITEM_LOG_START:
            assert formats.decode_log_start(item.body) >= 0
        elif item.kind == formats.ITEM_APPEND:
            assert batch.parse_header(item.body).length > 0
    bodies = [formats.encode_item(item.kind, item.partition, len(item.body)) + bytes(item.body) for item in items]
    numbers = {"generation": header.generation, "sequence": header.sequence, "synced": header.synced}
    again = formats.encode_entry(bodies, length=header.length, item_count=header.item_count, **numbers)
    whole = formats.decode_entry_header(b"".join(again))
    assert whole is not None
    assert whole[:5] == header[:5]
    assert list(formats.items_of(b"".join(again), whole)) == items


def fix_journal(data: bytearray, chance: random.Random) -> None:
    at = 0
    while at < len(data):
        at = fix_entry(data, chance, at, is_last=False)


def check_journal(data: bytes) -> None:
    first, _, second = data.partition(FRAME_END)
    files, names = [MemoryFile(first), MemoryFile(second)], ["0", "1"]
    found = replay.scan(files, names, 1)
    for number, entry in enumerate(found.entries, 1):
        assert entry.header.sequence == number
        assert formats.entry_is_whole(entry.header, replay.read_entry(files[entry.slot], entry))
    assert found.next_sequence > len(found.entries)
    assert found.torn is None or 0 <= found.torn.position < files[found.torn.slot].size()
    if len(first) % 4 == 0:
        ends = zip(replay.whole_ends(files, names, 1), files, strict=True)
        assert all(end < file.size() + formats.ENTRY_ALIGNMENT for end, file in ends)  # the padding need not be there


INDEX_SEED: Final = formats.index_seed(WHERE, BASE)


def index_of(count: int) -> bytes:
    return b"".join(formats.encode_index_entry(formats.IndexEntry(n * 10, n * 70_000, n * 5), INDEX_SEED) for n in range(1, count))


def fix_index(data: bytearray, chance: random.Random) -> None:
    for at in range(0, len(data) - formats.INDEX_ENTRY_BYTES + 1, formats.INDEX_ENTRY_BYTES):
        struct.pack_into("<I", data, at + 16, crc32c(bytes(data[at : at + 16]), INDEX_SEED))


def check_index(data: bytes) -> None:
    entry = formats.decode_index_entry(data[: formats.INDEX_ENTRY_BYTES], INDEX_SEED)
    if entry is not None:
        assert formats.encode_index_entry(entry, INDEX_SEED) == data[: formats.INDEX_ENTRY_BYTES]
    wanted = 35
    found = index.find_floor(MemoryFile(data), INDEX_SEED, -(-len(data) // formats.INDEX_ENTRY_BYTES), lambda each: each.relative <= wanted)
    assert found.relative <= wanted


PARTITION: Final = PartitionEntry(
    TOPIC, 3, 0, 40, 10, 900, 1, 70, 5, 9, 5, (EpochStart(1, 0), EpochStart(2, 10)),
    {7: ProducerEntry(0, (WrittenBatch(0, 4, 10, 15, 1, 5), WrittenBatch(5, 5, 15, 16, 1, 6)))}, "", 4096,
)  # fmt: skip


def sealed(magic: bytes) -> Callable[..., bytes]:
    return lambda body, _=None: formats.seal_file(magic, body)


def fix_sealed(data: bytearray, chance: random.Random) -> None:
    if len(data) < 16:
        return
    if chance.random() < 0.9:
        struct.pack_into("<I", data, 8, len(data) - 16)
    struct.pack_into("<I", data, 12, 0)
    struct.pack_into("<I", data, 12, crc32c(bytes(data[16:]), crc32c(bytes(data[:16]))))


def check_checkpoint(data: bytes) -> None:
    manifest, entries = decode_manifest(data, "checkpoint")
    again = encode_manifest(manifest.first_sequence, [encode_partition(entry) for entry, _ in entries], is_clean=manifest.is_clean)
    second, others = decode_manifest(again, "checkpoint")
    assert [entry for entry, _ in others] == [entry for entry, _ in entries]
    assert (second.first_sequence, second.is_clean) == (manifest.first_sequence, manifest.is_clean)
    for entry, _ in entries:
        batch.stamp_seed(entry.partition_id)
        states = ProducerStates(entry.producers)
        assert dict(states.entries) == entry.producers
        for state in states.entries.values():
            assert state.end_offset == state.batches[-1].end_offset


def check_identity(data: bytes) -> None:
    identity = load_identity(OneFile(data), "root")  # type: ignore[arg-type]
    assert identity is not None
    assert msgspec.json.decode(msgspec.json.encode(identity), type=Identity) == identity


METADATA: Final = (
    metadata.BrokerRegistered(1, "d", "tcp://h:1", "r", "v"),
    metadata.TopicCreated(TOPIC, "t", [metadata.Assignment((1, 2), (1,), 1, (2,))], {"retention_ms": "7d"}, 1, b"\0\1"),
    metadata.TopicAltered(TOPIC, {"retention_ms": "1d"}),
    metadata.TopicDeleted(TOPIC),
    metadata.PartitionChanged(TOPIC, 1, 1, 2, 3, (1, 2), (1,), (2,)),
    metadata.ProducerIdsAllocated(1, 2, 3000),
    metadata.FeatureLevelSet("f", 1),
)


def check_metadata(data: bytes) -> None:
    record = metadata.decode(data)
    assert metadata.decode(metadata.encode(record)) == record


_MANIFESTS: Final = (pack((5, True, [PARTITION, PARTITION])), pack((1, False, [])))
_IDENTITY: Final = msgspec.json.encode(Identity("cluster", 1, "directory"))
_METADATA: Final = tuple(map(metadata.encode, METADATA))
_JOURNALS: Final = (b"".join(ENTRIES), b"".join(ENTRIES[:2]) + FRAME_END + entry_of(3, ITEMS, 78))
_SEALED_ERRORS: Final = (CorruptLog, UnsupportedVersion)
_CHECKPOINT: Final = sealed(formats.CHECKPOINT_MAGIC)
_IDENTITY_FILE: Final = sealed(formats.IDENTITY_MAGIC)

TARGETS: Final = (
    Target("journal-entry", check_entry, (ValueError, InvalidRecord, UnsupportedVersion), ENTRIES, fix=fix_entry),
    Target("journal", check_journal, (CorruptLog,), _JOURNALS, fix=fix_journal),
    Target("index", check_index, (index.BadIndex,), (index_of(9), index_of(2), b""), fix=fix_index),
    Target(
        "checkpoint", check_checkpoint, _SEALED_ERRORS, tuple(map(_CHECKPOINT, _MANIFESTS)),
        fix=fix_sealed, trees=Trees(_MANIFESTS, unpack, pack, _CHECKPOINT),
    ),
    Target(
        "identity", check_identity, _SEALED_ERRORS, (_IDENTITY_FILE(_IDENTITY),),
        tokens=TEXT, fix=fix_sealed, trees=Trees((_IDENTITY,), msgspec.json.decode, msgspec.json.encode, _IDENTITY_FILE),
    ),
    Target(
        "metadata-record", check_metadata, (InvalidRecord, UnsupportedVersion), _METADATA,
        trees=Trees(tuple(each[1:] for each in _METADATA), unpack, pack, lambda body, _: _METADATA[0][:1] + body),
    ),
)  # fmt: skip
