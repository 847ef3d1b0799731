"""The store: all partitions of one data directory.

A round is ``append`` (segments first, then one journal entry for all), later ``begin_sync``, ``SyncJob.run``
in any thread, ``end_sync``. Checkpoints go the same way. Every other method belongs to the thread that
appends. ``read`` sees a batch as soon as ``append`` returned.

Promises: what ``end_sync`` reported survives a power cut at any moment; a failed append leaves nothing
behind; after a failed sync, or when the directory was removed or replaced, nothing is written any more
(``offline`` says why), and reads go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from zmqmq.errors import CorruptLog, LogOffline, Throttled, UnknownTopic, ZmqmqError
from zmqmq.facts import LogState, StartMoved, Synced
from zmqmq.marks import reached
from zmqmq.model import METADATA_PARTITION, PartitionId, Timestamps
from zmqmq.store import formats, reading, truncation
from zmqmq.store.files import PASSING, disk_error
from zmqmq.store.identity import Identity, save_identity
from zmqmq.store.jobs import CheckpointJob, SyncJob
from zmqmq.store.journal import Journal
from zmqmq.store.layout import LOGS, join, topic_directory, topic_of_directory
from zmqmq.store.partition_log import Mark, PartitionLog
from zmqmq.store.recovery import RecoveryReport, lock_directory, recover, remove_deleted
from zmqmq.store.room import Room
from zmqmq.store.schedule import Schedule
from zmqmq.store.volume import Volume
from zmqmq.topic_config import TopicConfig
from zmqmq.units import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from zmqmq.batch import StampedBatch
    from zmqmq.effects import Append
    from zmqmq.ports import Buffer, Clock, Disk, Random
    from zmqmq.store.recovery import Recovered

__all__ = ["CheckpointJob", "Identity", "RecoveryReport", "Store", "StoreOptions", "SyncJob"]

BLOCKED_RETRY_MS: Final = 1000
"""Before retention asks again about segments that the high watermark holds back."""
CHECKPOINT_RETRY_MS: Final = 1000
FILES_RETRY_MS: Final = 50
SAVED_BYTES_MAX: Final = 64 << 10


class StoreOptions(Struct, frozen=True):
    """The store's own settings."""

    journal_bytes_max: int = 64 << 20
    """Of each of the journal's two files, 64 KiB or more; a checkpoint begins when one is half full."""
    journal_allocate_bytes: int = 4 << 20
    """Step in which they grow."""
    open_files_max: int = 8192
    """Segments and indexes kept open, 8 or more. A checkpoint begins when half of them were written since the last."""
    checkpoint_ms_max: int = 60_000
    """A checkpoint is due so long after the last one if anything changed."""
    remove_ms_max: int = 5_000
    """And so long after it if files wait for their removal."""
    disk_bytes_max: int = UNLIMITED
    """All logs and the journal together; appends beyond it get DiskFull."""
    disk_reserve_bytes: int = 64 << 20
    """Left free on the disk for the metadata log and for recovery; other appends get DiskFull."""


DEFAULT_OPTIONS: Final = StoreOptions()


class Store:
    """All partitions of one data directory. See the module for who may call what, and when."""

    def __init__(
        self,
        volume: Volume,
        journal: Journal,
        recovered: Recovered,
        *,
        clock: Clock,
        options: StoreOptions,
        report: RecoveryReport,
    ) -> None:
        self.identity: Identity = recovered.identity
        self.report = report
        self.offline = ""
        self._volume = volume
        self._journal = journal
        self._logs = recovered.logs
        self._clock = clock
        self._options = options
        self._unsynced: dict[PartitionId, None] = {}
        self._schedule = Schedule()
        self._size_bytes = sum(log.size_bytes for log in self._logs.values())
        self._sync: SyncJob | None = None
        self._is_checkpointing = False
        self._has_changed = False
        self._checkpoint_ms = clock.monotonic_ms()
        self._room = Room(volume.disk, volume.root, clock, bytes_max=options.disk_bytes_max, reserve_bytes=options.disk_reserve_bytes)

    @classmethod
    def open(
        cls,
        disk: Disk,
        root: str,
        *,
        clock: Clock,
        random: Random,
        options: StoreOptions = DEFAULT_OPTIONS,
        node_id: int = 1,
    ) -> Store:
        """Open a data directory, or make one; always recovers.

        Raises DataDirLocked, CorruptLog (a file says what cannot be), UnsupportedVersion, DiskFull, LogOffline.
        """
        started = clock.monotonic_ms()
        lock = volume = None
        try:
            lock = lock_directory(disk, root)
            volume = Volume(disk, root, lock, files_max=options.open_files_max)
            recovered = recover(volume, random, node_id=node_id, allocate_bytes=options.journal_allocate_bytes)
            journal = Journal(
                recovered.journal_files,
                next_sequence=recovered.next_sequence,
                random=random,
                bytes_max=options.journal_bytes_max,
                allocate_bytes=options.journal_allocate_bytes,
            )
        except (OSError, ZmqmqError) as error:
            if volume is not None:
                volume.files.close()
            if lock is not None:
                lock.close()
            if isinstance(error, OSError):
                raise disk_error(error, f"opening {root}") from error
            raise
        found = recovered.report
        report = RecoveryReport(
            found.replayed_batches,
            found.replayed_bytes,
            found.torn,
            found.out_of_service,
            found.was_clean,
            clock.monotonic_ms() - started,
        )
        return cls(volume, journal, recovered, clock=clock, options=options, report=report)

    def create(self, partition: PartitionId, config: TopicConfig) -> None:
        """Make room for a partition, or give it new settings. Writes nothing yet."""
        log = self._logs.get(partition)
        if log is None:
            log = self._logs[partition] = PartitionLog(self._volume, partition)
            self._has_changed = True
        if config.segment_bytes != log.config.segment_bytes:
            log.encoded = None
            self._has_changed = True
        log.config = config
        log.needs_size_check = True
        self._schedule.add(log)

    def partitions(self) -> list[PartitionId]:
        return list(self._logs)

    def __contains__(self, partition: object) -> bool:
        return partition in self._logs

    def state(self, partition: PartitionId) -> LogState:
        return self._log(partition).state()

    def _log(self, partition: PartitionId) -> PartitionLog:
        log = self._logs.get(partition)
        if log is None:
            raise UnknownTopic(f"the store has no partition {partition}")
        return log

    def delete_topic(self, topic_id: bytes) -> None:
        """Remove all partitions of a topic: at once for readers, for good at the next checkpoint. Raises LogOffline."""
        for partition in [partition for partition in self._logs if partition.topic_id == topic_id]:
            log = self._logs.pop(partition)
            self._size_bytes -= log.size_bytes
            self._unsynced.pop(partition, None)
        self._has_changed = True
        self._volume.forget_directory(topic_directory(self._volume.root, topic_id))
        try:
            self._volume.check_held()
            target = remove_deleted(self._volume.disk, self._volume.root, topic_id)
        except OSError as error:
            raise disk_error(error, f"deleting topic {topic_id.hex()}") from error
        if target is not None:
            self._volume.doomed[target] = None

    def retain_only(self, topic_ids: Collection[bytes]) -> None:
        """Remove topics that the metadata does not know: their creation or deletion was cut short. Raises LogOffline."""
        wanted = {*topic_ids, METADATA_PARTITION.topic_id}
        try:
            names = self._volume.disk.listdir(join(self._volume.root, LOGS))
        except OSError as error:
            raise disk_error(error, "listing topics") from error
        on_disk = [topic_id for name in names if (topic_id := topic_of_directory(name)) is not None and name == topic_id.hex()]
        known = [partition.topic_id for partition in self._logs]
        for topic_id in dict.fromkeys((*on_disk, *known)):
            if topic_id not in wanted:
                self.delete_topic(topic_id)

    def append(self, appends: Sequence[Append]) -> dict[PartitionId, ZmqmqError]:
        """Write a round. The partitions that failed, with why; all of a failed partition's batches are taken back."""
        batches: dict[PartitionId, list[StampedBatch]] = {}
        for append in appends:
            batches.setdefault(append.partition, []).extend(append.batches)
        if self.offline:
            return dict.fromkeys(batches, self._offline_error())
        written: list[tuple[PartitionLog, list[StampedBatch], Mark]] = []
        failed: dict[PartitionId, ZmqmqError] = {}
        for partition, stamped in batches.items():
            error = self._journal_full(partition) or self._write_segment(partition, stamped, written)
            if error is not None:
                failed[partition] = error
        if written:
            error = self._write_journal(written)
            if error is not None:
                return {**failed, **dict.fromkeys([log.id for log, _, _ in written], error)}
        return failed

    def move_log_start(self, partition: PartitionId, log_start: int) -> None:
        """Records before ``log_start`` are gone for readers now, durably after the next sync.

        Raises DiskFull, Throttled, LogOffline, CorruptLog.
        """
        log = self._log(partition)
        if self.offline:
            raise self._offline_error()
        log.check_in_service()
        # Retention may have moved it this far already, without a word in the journal.
        log_start = max(min(log_start, log.log_end), log.log_start)
        refusal = self._write_item(formats.encode_log_start(partition, log_start))
        if refusal is not None:
            raise refusal
        before = log.size_bytes
        try:
            log.move_log_start(log_start)
        except OSError as error:
            raise disk_error(error, f"moving the log start of {partition}") from error
        self._size_bytes += log.size_bytes - before

    def truncate(self, ends: Mapping[PartitionId, int]) -> dict[PartitionId, int | ZmqmqError]:
        """Take back what is behind these offsets: each log ends at the batch boundary at or below its offset, durably when
        this returns. Their new ends, or why a log is as it was. Waits for the disk; one sync for all.

        A log that begins behind its offset is empty then, and begins at it.
        """
        results: dict[PartitionId, int | ZmqmqError] = {}
        plans: list[tuple[PartitionLog, truncation.Plan]] = []
        for partition, end in ends.items():
            try:
                log, plan = self._plan_cut(partition, end)
            except ZmqmqError as error:
                results[partition] = error
                continue
            results[partition] = log.log_end if plan is None else plan.end
            if plan is not None:
                plans.append((log, plan))
        if plans:
            failure = self._cut(plans)
            if failure is not None:
                results.update(dict.fromkeys([log.id for log, _ in plans], failure))
        return results

    def reset(self, partition: PartitionId, log_start: int) -> None:
        """An empty log that begins at ``log_start``, durably when this returns; also out of a partition that is out of
        service. What was saved with it stays.

        Raises UnknownTopic, LogOffline, DiskFull, Throttled (a running checkpoint removes files whose names are needed).
        """
        log = self._log(partition)
        self._check_cuttable(log)
        plan = truncation.reset(log_start)
        self._check_names(log, plan)
        error = self._cut([(log, plan)])
        if error is not None:
            raise error

    def save(self, partition: PartitionId, data: bytes) -> None:
        """Keep at most SAVED_BYTES_MAX bytes with a partition, in place of those before. The next sync makes them durable and
        reports the partition. Raises UnknownTopic, LogOffline, DiskFull, Throttled."""
        assert len(data) <= SAVED_BYTES_MAX
        log = self._log(partition)
        if self.offline:
            raise self._offline_error()
        refusal = self._journal_full(partition) or self._write_item(formats.encode_saved(partition, data))
        if refusal is not None:
            raise refusal
        log.saved, log.encoded = data, None
        self._unsynced[partition] = None

    def saved(self, partition: PartitionId) -> bytes:
        """What was saved last, synced or not; nothing at first."""
        return self._log(partition).saved

    def adopt_cluster(self, cluster_id: str) -> None:
        """The directory belongs to this cluster from now on, durably. Raises LogOffline, DiskFull."""
        self.look_after_directory()
        if self.offline:
            raise self._offline_error()
        identity = msgspec.structs.replace(self.identity, cluster_id=cluster_id)
        try:
            save_identity(self._volume.disk, self._volume.root, identity)
        except OSError as error:
            if error.errno not in PASSING:
                self._go_offline(f"the identity could not be written: {error.strerror or error}")
            raise disk_error(error, "writing the identity") from error
        self.identity = identity

    def _plan_cut(self, partition: PartitionId, end: int) -> tuple[PartitionLog, truncation.Plan | None]:
        assert end >= 0
        log = self._log(partition)
        self._check_cuttable(log)
        try:
            log.check_in_service()
            plan = truncation.plan(log, end)
        except OSError as error:
            raise disk_error(error, f"truncating {partition}") from error
        except CorruptLog as error:
            log.fail(error)
            raise
        if plan is not None:
            self._check_names(log, plan)
        return log, plan

    def _check_cuttable(self, log: PartitionLog) -> None:
        if self.offline:
            raise self._offline_error()
        if log.offline:
            raise LogOffline(f"{log.id} is out of service: {log.offline}", outcome="not_written")

    def _check_names(self, log: PartitionLog, plan: truncation.Plan) -> None:
        """Raises Throttled while a checkpoint removes files that the log's next life may want to write."""
        if plan.is_reset and self._volume.removes_from(log.directory, plan.end):
            raise Throttled(
                f"{log.id} begins anew at {plan.end}, and a checkpoint still removes its old segments",
                retry_after_ms=FILES_RETRY_MS,
                hint="ask again when the checkpoint is done",
                outcome="not_written",
            )

    def _cut(self, plans: Sequence[tuple[PartitionLog, truncation.Plan]]) -> ZmqmqError | None:
        """Say it in the journal, durably, then do it."""
        items = [plan.item(log.id) for log, plan in plans]
        refusal = self._write_item(*items)
        if refusal is not None:
            return refusal
        try:
            self._journal.sync()
        except OSError as error:
            self._go_offline(f"the journal could not be synced for a truncation: {error.strerror or error}")
        self.look_after_directory()
        if self.offline:
            failure = self._offline_error()
            failure.outcome = "unknown"
            return failure
        for log, plan in plans:
            before = log.size_bytes
            truncation.apply(log, plan)
            self._unsynced[log.id] = None
            if self._sync is not None:
                self._sync.ends.pop(log.id, None)  # it began with an end that is taken back
            self._cut_files(log, plan)
            self._size_bytes += log.size_bytes - before
            self._schedule.add(log)
        return None

    def _cut_files(self, log: PartitionLog, plan: truncation.Plan) -> None:
        """What fails here is done before the next write, or by the next open: the journal knows."""
        if self._volume.files.is_full:
            return
        try:
            truncation.cut_files(log, plan)
        except OSError as error:
            self._segment_error(log, error)
        except CorruptLog as error:
            log.fail(error)

    def _write_item(self, *items: bytes) -> ZmqmqError | None:
        """An entry of its own."""
        try:
            self._journal.write(items, length=sum(map(len, items)), item_count=len(items))
        except (OSError, ZmqmqError) as error:
            return self._take_back([], error)
        self._has_changed = True
        return None

    def begin_sync(self) -> SyncJob | None:
        """A job that makes everything written so far durable; None if it is. One at a time."""
        assert self._sync is None
        if self.offline:
            return None
        if not self._journal.has_unsynced:
            return None
        files, sequence = self._journal.begin_sync()
        ends = {partition: self._logs[partition].log_end for partition in self._unsynced}
        self._unsynced = {}
        self._sync = SyncJob(files, sequence, ends)
        return self._sync

    def end_sync(self, job: SyncJob, error: OSError | None = None) -> list[Synced]:
        """What is durable now. Nothing after an error, or if the directory is not ours any more: the store is offline then."""
        self._sync = None
        if error is not None:
            self._go_offline(f"the journal could not be synced: {error.strerror or error}")
        else:
            self.look_after_directory()
        if self.offline:
            return []
        self._journal.end_sync(job.sequence)
        synced = []
        for partition, end in job.ends.items():
            log = self._logs.get(partition)
            if log is not None:
                log.synced_end = end
                synced.append(Synced(partition, end))
        return synced

    def _journal_full(self, partition: PartitionId) -> Throttled | None:
        """The metadata log is small, and who asks for a change of it does not ask again."""
        try:
            self._journal.check_room(is_urgent=partition == METADATA_PARTITION)
        except Throttled as full:
            return full
        return None

    def _write_segment(
        self, partition: PartitionId, batches: list[StampedBatch], written: list[tuple[PartitionLog, list[StampedBatch], Mark]]
    ) -> ZmqmqError | None:
        log = self._logs.get(partition)
        if log is None:
            return UnknownTopic(f"the store has no partition {partition}", outcome="not_written")
        if log.error or log.offline:
            return LogOffline(f"{partition} is out of service: {log.error or log.offline}", outcome="not_written")
        try:
            if partition != METADATA_PARTITION:
                refusal = self._room.refusal(sum([batch.header.length for batch in batches]), self.size_bytes())
                if refusal is not None:
                    return refusal
                self._check_files(log)
            log.prepare()
        except OSError as error:
            return self._segment_error(log, error)
        except ZmqmqError as error:
            return error
        mark = log.mark()
        try:
            log.write(batches)
        except OSError as error:
            log.restore(mark)
            return self._segment_error(log, error)
        written.append((log, batches, mark))
        return None

    def _check_files(self, log: PartitionLog) -> None:
        """Raises Throttled while too many files wait for a checkpoint. A partition whose segment does goes on."""
        files = self._volume.files
        if files.is_full and not files.is_pinned(log.active_path):
            raise Throttled(
                f"{self._options.open_files_max} files were written and wait for a checkpoint",
                retry_after_ms=FILES_RETRY_MS,
                hint="raise the broker's limit of open files (ulimit -n) and store.open_files_max; the client retries by itself",
                outcome="not_written",
            )

    def _segment_error(self, log: PartitionLog, error: OSError) -> ZmqmqError:
        if isinstance(error, FileNotFoundError):
            self._go_offline(f"the data directory or a part of it is gone: {error}")
        elif error.errno not in PASSING:
            log.offline = f"its segment could not be written: {error.strerror or error}"
        return disk_error(error, f"writing {log.id}")

    def _write_journal(self, written: list[tuple[PartitionLog, list[StampedBatch], Mark]]) -> ZmqmqError | None:
        """One entry for the round; then it counts. Else it is taken back."""
        items: list[Buffer] = []
        length = 0
        for log, batches, _ in written:
            size = sum([batch.header.length for batch in batches])
            items.append(formats.encode_item(formats.ITEM_APPEND, log.id, size))
            for batch in batches:
                items.extend(batch.buffers)
            length += formats.ITEM_HEADER_BYTES + size
        try:
            self._journal.write(items, length=length, item_count=len(written))
        except (OSError, ZmqmqError) as error:
            return self._take_back(written, error)
        self._has_changed = True
        for log, batches, mark in written:
            was_empty = mark.position == 0 or log.base != mark.base
            log.commit(batches, mark)
            self._unsynced[log.id] = None
            written_bytes = sum([batch.header.length for batch in batches])
            self._size_bytes += written_bytes
            self._room.wrote(written_bytes)
            if was_empty:
                self._schedule.add(log)
        return None

    def _take_back(self, written: list[tuple[PartitionLog, list[StampedBatch], Mark]], error: OSError | ZmqmqError) -> ZmqmqError:
        reached("append taken back")
        for log, _, before in written:
            log.restore(before)
        if isinstance(error, ZmqmqError):
            return error
        found = disk_error(error, "writing the journal")
        if isinstance(found, LogOffline):
            # The disk may hold the entry in spite of its error, and then the next open finds it.
            found.outcome = "unknown"
            self._go_offline(str(found))
        return found

    def _go_offline(self, reason: str) -> None:
        if not self.offline:
            reached("store offline")
            self.offline = reason

    def _offline_error(self) -> LogOffline:
        return LogOffline(
            f"nothing is written any more: {self.offline}",
            hint="look at the disk and the system's log, then restart the broker",
            outcome="not_written",
        )

    def checkpoint_due(self) -> bool:
        if self._is_checkpointing or self.offline:
            return False
        age_ms = self._clock.monotonic_ms() - self._checkpoint_ms
        if age_ms < 0:
            return False
        volume, options = self._volume, self._options
        return (
            self._journal.is_half_full
            or len(volume.dirty) * 2 > options.open_files_max
            or (self._has_changed and age_ms >= options.checkpoint_ms_max)
            or (bool(volume.doomed) and age_ms >= options.remove_ms_max)
        )

    def begin_checkpoint(self) -> CheckpointJob | None:
        """A job that makes the journal superfluous up to here; None when nothing changed. One at a time."""
        # A file that filled up while the other was needed stays full after a checkpoint; only the next one can leave it.
        has_reason = self._has_changed or bool(self._volume.doomed) or self._journal.is_half_full
        return self._begin_checkpoint(is_clean=False) if has_reason else None

    def _begin_checkpoint(self, *, is_clean: bool) -> CheckpointJob | None:
        assert not self._is_checkpointing
        self.look_after_directory()
        if self.offline:
            return None
        self._journal.switch()
        volume = self._volume
        volume.removed = {}
        job = CheckpointJob(
            volume.disk,
            volume.root,
            volume.lock,
            first_sequence=self._journal.next_sequence,
            partitions=[log.encoded or log.entry() for log in self._logs.values()],
            files=volume.dirty,
            directories=volume.dirty_directories,
            doomed=volume.doomed,
            removed=volume.removed,
            is_clean=is_clean,
        )
        volume.dirty, volume.dirty_directories, volume.doomed = {}, {}, {}
        volume.removing = job.doomed
        self._is_checkpointing = True
        self._has_changed = False
        return job

    def end_checkpoint(self, job: CheckpointJob, error: OSError | None = None) -> None:
        """Free the journal, or take the job's work back. Only a lack of space or of files is forgiven, and no failed sync."""
        self._is_checkpointing = False
        self._volume.removing = {}
        self._checkpoint_ms = self._clock.monotonic_ms()
        self._keep_encoded(job)
        try:
            if error is None:
                self._volume.synced(job.files)
                self._journal.retire()
                return
        except OSError as failure:
            error = failure
        reached("checkpoint failed")
        volume = self._volume
        left = {path: None for path in job.files if path not in job.removed}
        volume.dirty = {**left, **volume.dirty}
        volume.dirty_directories = {**job.directories, **volume.dirty_directories}
        volume.doomed = {**job.doomed, **volume.doomed}
        self._has_changed = True
        self._checkpoint_ms += CHECKPOINT_RETRY_MS
        if error.errno not in PASSING:
            self._go_offline(f"a checkpoint failed: {error.strerror or error}")

    def _keep_encoded(self, job: CheckpointJob) -> None:
        """The next checkpoint needs not encode again what has not changed."""
        for entry, encoded in job.encoded:
            log = self._logs.get(entry.partition_id)
            if log is not None and log.encoded is entry:
                log.encoded = encoded

    def read(self, partition: PartitionId, offset: int, end: int, bytes_max: int) -> bytes:
        """Contiguous whole batches from the one that contains ``offset``, none of them beyond ``end``: about
        ``bytes_max`` bytes, at least one batch if there is any. Headers are checked; bodies are left to the consumer.

        Raises UnknownTopic, DataLost (before the log start), CorruptLog, LogOffline.
        """
        try:
            return reading.read(self._log(partition), offset, end, bytes_max)
        except OSError as error:
            raise disk_error(error, f"reading {partition}") from error

    def find_time(self, partition: PartitionId, time_ms: int, end: int) -> Timestamps | None:
        """The first offset before ``end`` that was appended at ``time_ms`` or later. Raises as ``read``."""
        try:
            return reading.find_time(self._log(partition), time_ms, end)
        except OSError as error:
            raise disk_error(error, f"reading {partition}") from error

    def look_after_directory(self) -> None:
        """Go offline if the data directory was removed or replaced. Another broker may have it then."""
        if not self.offline:
            try:
                self._volume.check_held()
            except OSError as error:
                self._go_offline(f"{error.strerror or error}: {self._volume.root}")

    def maintain(self, now_ms: int, ends: Mapping[PartitionId, int]) -> list[StartMoved]:
        """Seal old segments and remove expired ones, none of it at or above a partition's end in ``ends``.

        Looks only at partitions that are due, and at most ``schedule.DUE_MAX`` of them, so that the caller is not held
        up. A partition that fails goes out of service, the others go on.
        """
        if self.offline:
            return []
        moved: list[StartMoved] = []
        looked_at = list(self._schedule.take_due(self._logs, now_ms))
        for log in looked_at:
            due = log.due_ms()
            if due is not None and due <= now_ms and self._maintain_log(log, now_ms, ends.get(log.id, 0)):
                moved.append(StartMoved(log.id, log.log_start))
            self._schedule.add(log, not_before=now_ms + BLOCKED_RETRY_MS)
        return moved

    def _maintain_log(self, log: PartitionLog, now_ms: int, end: int) -> bool:
        before = log.size_bytes
        try:
            has_moved = log.maintain(now_ms, end)
        except OSError as error:
            self._segment_error(log, error)
            return False
        except ZmqmqError as error:
            log.fail(error)
            return False
        self._size_bytes += log.size_bytes - before
        self._has_changed = True
        return has_moved

    def journal_bytes(self) -> int:
        """What a recovery now would replay."""
        return self._journal.live_bytes

    def size_bytes(self) -> int:
        """Logs and journal together."""
        return self._size_bytes + self._journal.size_bytes

    def close(self) -> None:
        """A last sync and checkpoint, then let go. Whoever runs a job must have ended it before."""
        try:
            self.look_after_directory()
            if not self.offline:
                self._close_cleanly()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of every file and of the lock, writing nothing: what a child process does with an inherited store."""
        self._volume.files.close()
        self._journal.close()
        self._volume.lock.close()

    def _close_cleanly(self) -> None:
        try:
            sync = self.begin_sync()
            if sync is not None:
                sync.run()
                self.end_sync(sync)
            job = self._begin_checkpoint(is_clean=True)
            if job is not None:
                job.run()
        except OSError as error:
            self._go_offline(f"closing: {error.strerror or error}")

    def __repr__(self) -> str:
        offline = f" offline: {self.offline}" if self.offline else ""
        return f"<Store {self._volume.root} partitions={len(self._logs)} {self._journal!r}{offline}>"
