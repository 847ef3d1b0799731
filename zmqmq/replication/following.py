"""All partitions that this broker follows: what to fetch from whom, what to report, what to subscribe to.

Pure. Facts come in by ``on_…``; at the end of a round the shell performs ``take_work``, says what became of it, and sends
``take_messages``. Nothing here takes time in proportion to the partitions that nothing happened to, but for the sweep over one leader's
partitions when its beats are missing.

One fetch is under way per leader, with a deadline; partitions are asked for in the order in which they came to want it, those that are far
behind after the others, and within ``catch_up_bytes_per_s`` if that is set.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from msgspec import Struct

from zmqmq.effects import Append, MoveLogStart
from zmqmq.marks import reached
from zmqmq.metadata.image import NO_LEADER
from zmqmq.model import PartitionId
from zmqmq.replication.follower import PartitionFollower, Reset, Truncate
from zmqmq.replication.messages import (
    REPLICA_ENTRIES_MAX,
    Beat,
    ReplicaBatches,
    ReplicaFetch,
    ReplicaFetchEntry,
    ReplicaReport,
    StreamHeader,
    beat_key,
    stream_key,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from zmqmq.facts import LogState
    from zmqmq.ports import Buffer

FETCH_MS_MAX: Final = 500
"""A fetch without an answer for so long is given up, and sent again."""
FETCH_BYTES_MAX: Final = 4 << 20
"""What one fetch asks for."""
RETRY_MS: Final = 50
"""After an answer that did not help, or an append that failed."""
BEAT_MISSING_MS: Final = 300
"""A leader that was not heard on the stream for so long is asked for everything."""
SWEEP_PARTITIONS_PER_MS: Final = 10
"""Sweeps over more partitions come less often."""
HELD_BYTES_MAX: Final = 32 << 20
"""Stream messages of all partitions kept while fetches close the gaps before them."""
_NUMBERS_PER_EPOCH: Final = 1 << 32

Subscription: TypeAlias = tuple[int, bytes]


class Logs(Protocol):
    """What may be looked up in the store."""

    def state(self, partition: PartitionId) -> LogState: ...


class Work(Struct):
    """What to do on the store, in this order. ``wants_sync``: somebody waits for these appends to be on disk."""

    truncations: dict[PartitionId, int] = {}
    resets: list[Reset] = []
    appends: list[Append] = []
    starts: list[MoveLogStart] = []
    wants_sync: bool = False


class _Link:
    """What goes on with one leader."""

    def __init__(self, now_ms: int) -> None:
        self.partitions: dict[PartitionId, None] = {}
        self.wanting: dict[PartitionId, None] = {}
        self.wanting_far: dict[PartitionId, None] = {}
        self.reports: dict[PartitionId, None] = {}
        self.under_way: dict[PartitionId, ReplicaFetchEntry] = {}
        self.number = -1
        self.deadline_ms = 0
        self.heard_ms = now_ms

    def forget(self, partition: PartitionId) -> None:
        for names in (self.partitions, self.wanting, self.wanting_far, self.reports):
            names.pop(partition, None)
        self.under_way.pop(partition, None)

    def sweep_ms(self) -> int:
        return self.heard_ms + BEAT_MISSING_MS + len(self.partitions) // SWEEP_PARTITIONS_PER_MS


class Following:
    """See the module. Belongs to one thread."""

    def __init__(self, node_id: int, logs: Logs, *, catch_up_bytes_per_s: int = 0) -> None:
        self.node_id = node_id
        self.refused_count = 0
        """Answers that were malformed."""
        self._logs = logs
        self._broker_epoch = -1
        self._number = self._report_number = 0
        self._rate = catch_up_bytes_per_s
        self._allowance = float(catch_up_bytes_per_s)
        self._allowance_ms = 0
        self._followers: dict[PartitionId, PartitionFollower] = {}
        self._fsynced: dict[PartitionId, bool] = {}
        self._links: dict[int, _Link] = {}
        self._far: dict[PartitionId, None] = {}
        self._retries: list[tuple[int, PartitionId]] = []
        self._retrying: dict[PartitionId, int] = {}
        self._held_bytes = 0
        self._work = Work()
        self._appends: dict[PartitionId, list[Append]] = {}
        self._subscriptions: list[tuple[int, bytes, bool]] = []

    def __len__(self) -> int:
        return len(self._followers)

    def __iter__(self) -> Iterator[PartitionFollower]:
        return iter(self._followers.values())

    def follower(self, partition: PartitionId) -> PartitionFollower | None:
        return self._followers.get(partition)

    def set_broker_epoch(self, broker_epoch: int) -> None:
        """This broker registered. Numbers never come again in a later broker epoch, so that no late answer is taken for a new one."""
        if broker_epoch > self._broker_epoch:
            self._broker_epoch = broker_epoch
            self._number = broker_epoch * _NUMBERS_PER_EPOCH
            self._report_number = 0

    def follow(self, partition: PartitionId, leader: int, leader_epoch: int, now_ms: int, *, is_fsync: bool, may_be_elected: bool) -> None:
        """The metadata log says who leads (NO_LEADER: nobody), and whether this broker may lead next. Said again without a change, it does
        nothing. Not while appends or cuts of the partition are under way."""
        self._fsynced[partition] = is_fsync
        follower = self._followers.get(partition)
        if follower is None:
            follower = PartitionFollower(partition, leader, leader_epoch, self._logs.state(partition))
            self._followers[partition] = follower
        elif (follower.leader, follower.leader_epoch) == (leader, leader_epoch):
            self._maybe_heal(follower, may_be_elected=may_be_elected)
            return
        else:
            self._retrying.pop(partition, None)
            self._unlink(partition, follower.leader)
            with_held = follower.held_bytes
            follower.on_leader(leader, leader_epoch)
            self._held_bytes -= with_held
        self._link(partition, leader, now_ms)
        self._maybe_heal(follower, may_be_elected=may_be_elected)
        self._note(follower)

    def unfollow(self, partition: PartitionId) -> int:
        """This broker leads it now, or does not keep it any more. The high watermark that it knew; 0 if it did not follow."""
        follower = self._followers.pop(partition, None)
        if follower is None:
            return 0
        self._unlink(partition, follower.leader)
        self._held_bytes -= follower.held_bytes
        for names in (self._fsynced, self._far, self._retrying, self._appends, self._work.truncations):
            names.pop(partition, None)
        self._work.resets = [reset for reset in self._work.resets if reset.partition != partition]
        self._work.starts = [start for start in self._work.starts if start.partition != partition]
        return follower.high_watermark

    def on_stream(self, partition: PartitionId, header: StreamHeader, data: Buffer, now_ms: int) -> None:
        follower = self._followers.get(partition)
        if follower is None or follower.leader != header.node_id:
            return
        self._links[header.node_id].heard_ms = now_ms
        before = follower.held_bytes
        follower.on_stream(header, data, may_hold=self._held_bytes + len(data) <= HELD_BYTES_MAX)
        self._held_bytes += follower.held_bytes - before
        self._note(follower)

    def on_beat(self, beat: Beat, now_ms: int) -> None:
        link = self._links.get(beat.node_id)
        if link is None:
            return
        link.heard_ms = now_ms
        for entry in beat.entries:
            follower = self._followers.get(PartitionId(entry.topic_id, entry.partition))
            if follower is not None and follower.leader == beat.node_id:
                follower.on_beat(entry)
                self._note(follower)

    def on_fetched(self, message: ReplicaBatches, payload: Sequence[Buffer], now_ms: int) -> None:
        """An answer. One that was not waited for (any more) is dropped."""
        link = self._links.get(message.node_id)
        if link is None or not link.under_way or message.number != link.number:
            return
        if sum(result.frames for result in message.results) != len(payload) or any(not 0 <= r.frames <= 1 for r in message.results):
            self.refused_count += 1
            return
        asked, link.under_way = link.under_way, {}
        answered = {PartitionId(result.topic_id, result.partition) for result in message.results}
        for partition in asked:
            if partition not in answered:
                self._want(self._followers[partition], link)
        frames = iter(payload)
        for result in message.results:
            data = next(frames) if result.frames else b""
            partition = PartitionId(result.topic_id, result.partition)
            if partition in asked:
                follower = self._followers[partition]
                before = follower.held_bytes
                has_helped = follower.on_fetched(asked[partition], result, data)
                self._held_bytes += follower.held_bytes - before
                self._settle(follower, has_helped, len(data), result.log_end, now_ms)

    def on_written(self, partition: PartitionId) -> None:
        self._tell(partition, PartitionFollower.on_written)

    def on_append_failed(self, partition: PartitionId, now_ms: int) -> None:
        follower = self._followers.get(partition)
        if follower is not None:
            self._held_bytes -= follower.held_bytes
            follower.on_append_failed()
            self._retry(follower, now_ms)
            self._note(follower)

    def on_synced(self, partition: PartitionId, end: int) -> None:
        self._tell(partition, lambda follower: follower.on_synced(end))

    def on_truncated(self, partition: PartitionId, end: int) -> None:
        self._tell(partition, lambda follower: follower.on_truncated(end))

    def on_reset(self, partition: PartitionId, log_start: int) -> None:
        self._tell(partition, lambda follower: follower.on_reset(log_start))

    def on_start_moved(self, partition: PartitionId, log_start: int) -> None:
        self._tell(partition, lambda follower: follower.on_start_moved(log_start))

    def on_start_synced(self, partition: PartitionId, log_start: int) -> None:
        self._tell(partition, lambda follower: follower.on_start_synced(log_start))

    def take_work(self) -> Work:
        """What the facts of this round ask of the store."""
        work, self._work = self._work, Work()
        appends, self._appends = self._appends, {}
        for partition, parts in appends.items():
            batches = tuple(batch for part in parts for batch in part.batches)
            work.appends.append(Append(partition, batches))
            work.wants_sync |= self._fsynced[partition]
        return work

    def take_messages(self, now_ms: int) -> list[tuple[int, ReplicaFetch | ReplicaReport]]:
        """What to send, and to whom. Nothing before this broker is registered."""
        if self._broker_epoch < 0:
            return []
        self._wake(now_ms)
        self._refill(now_ms)
        messages: list[tuple[int, ReplicaFetch | ReplicaReport]] = []
        for node, link in self._links.items():
            self._keep_time(link, now_ms)
            while link.reports:
                messages.append((node, self._report(link)))
            fetch = None if link.under_way else self._fetch(link, now_ms)
            if fetch is not None:
                messages.append((node, fetch))
        return messages

    def take_subscriptions(self) -> list[tuple[int, bytes, bool]]:
        """Changes, in order: broker, key, and whether to subscribe or to unsubscribe. Before the messages of the round."""
        changes, self._subscriptions = self._subscriptions, []
        return changes

    def next_deadline_ms(self) -> int | None:
        times = [self._retries[0][0]] if self._retries else []
        times += [link.deadline_ms if link.under_way else link.sweep_ms() for link in self._links.values()]
        if self._rate and self._allowance <= 0 and any(link.wanting_far for link in self._links.values()):
            times.append(self._allowance_ms + int(-self._allowance * 1000 / self._rate) + 1)
        return min(times, default=None)

    def _maybe_heal(self, follower: PartitionFollower, *, may_be_elected: bool) -> None:
        if follower.is_corrupt and not may_be_elected:
            follower.heal()
            self._note(follower)

    def _link(self, partition: PartitionId, leader: int, now_ms: int) -> None:
        if leader == NO_LEADER:
            return
        link = self._links.get(leader)
        if link is None:
            link = self._links[leader] = _Link(now_ms)
            self._subscriptions.append((leader, beat_key(self.node_id), True))
        link.partitions[partition] = None
        self._subscriptions.append((leader, stream_key(partition), True))

    def _unlink(self, partition: PartitionId, leader: int) -> None:
        link = self._links.get(leader)
        if link is None:
            return
        link.forget(partition)
        self._subscriptions.append((leader, stream_key(partition), False))
        if not link.partitions:
            del self._links[leader]
            self._subscriptions.append((leader, beat_key(self.node_id), False))

    def _tell(self, partition: PartitionId, tell: Callable[[PartitionFollower], None]) -> None:
        follower = self._followers.get(partition)
        if follower is not None:
            tell(follower)
            self._note(follower)

    def _note(self, follower: PartitionFollower) -> None:
        """Gather what a follower wants after it was told something."""
        for effect in follower.take_effects():
            match effect:
                case Append():
                    self._appends.setdefault(effect.partition, []).append(effect)
                case Truncate():
                    self._work.truncations[effect.partition] = effect.end
                case Reset():
                    self._work.resets.append(effect)
                case MoveLogStart():
                    self._work.starts.append(effect)
        link = self._links.get(follower.leader)
        if link is None:
            return
        if follower.wants_report:
            follower.wants_report = False
            link.reports[follower.partition] = None
        if follower.wants_fetch and follower.partition not in link.under_way:
            self._want(follower, link)

    def _want(self, follower: PartitionFollower, link: _Link) -> None:
        if follower.partition not in self._retrying:
            (link.wanting_far if follower.partition in self._far else link.wanting)[follower.partition] = None

    def _settle(self, follower: PartitionFollower, has_helped: bool, size: int, leader_end: int, now_ms: int) -> None:
        """After an answer: far behind is who got batches and still misses some."""
        if follower.partition in self._far:
            self._allowance -= size
        if size and follower.next_offset < leader_end:
            self._far[follower.partition] = None
        else:
            self._far.pop(follower.partition, None)
        if not has_helped:
            self._retry(follower, now_ms)
        self._note(follower)

    def _retry(self, follower: PartitionFollower, now_ms: int) -> None:
        """Not before a while."""
        due_ms = self._retrying[follower.partition] = now_ms + RETRY_MS
        heapq.heappush(self._retries, (due_ms, follower.partition))
        link = self._links.get(follower.leader)
        if link is not None:
            link.wanting.pop(follower.partition, None)
            link.wanting_far.pop(follower.partition, None)

    def _wake(self, now_ms: int) -> None:
        while self._retries and self._retries[0][0] <= now_ms:
            due_ms, partition = heapq.heappop(self._retries)
            if self._retrying.get(partition) == due_ms:
                del self._retrying[partition]
                self._note(self._followers[partition])

    def _refill(self, now_ms: int) -> None:
        if self._rate:
            earned = self._rate * (now_ms - self._allowance_ms) / 1000
            self._allowance = min(self._allowance + earned, float(self._rate))
            self._allowance_ms = now_ms

    def _keep_time(self, link: _Link, now_ms: int) -> None:
        if link.under_way and link.deadline_ms <= now_ms:
            reached("replica fetch given up")
            lost, link.under_way = link.under_way, {}
            for partition in lost:
                self._want(self._followers[partition], link)
        if not link.under_way and link.sweep_ms() <= now_ms:
            reached("beats missing")
            link.heard_ms = now_ms
            for partition in link.partitions:
                self._want(self._followers[partition], link)

    def _report(self, link: _Link) -> ReplicaReport:
        self._report_number += 1
        chosen = [self._followers[partition] for partition in _first(link.reports)]
        entries = [follower.report_entry() for follower in chosen if follower.is_validated]
        return ReplicaReport(self.node_id, self._broker_epoch, entries, self._report_number)

    def _fetch(self, link: _Link, now_ms: int) -> ReplicaFetch | None:
        chosen = _first(link.wanting)
        if not self._rate or self._allowance > 0:
            chosen += _first(link.wanting_far, REPLICA_ENTRIES_MAX - len(chosen))
        followers = [self._followers[partition] for partition in chosen]
        link.under_way = {one.partition: one.fetch_entry() for one in followers if not one.is_cutting}
        if not link.under_way:
            return None
        self._number += 1
        link.number = self._number
        link.deadline_ms = now_ms + FETCH_MS_MAX
        return ReplicaFetch(self.node_id, self._broker_epoch, link.number, FETCH_BYTES_MAX, list(link.under_way.values()))


def _first(names: dict[PartitionId, None], count_max: int = REPLICA_ENTRIES_MAX) -> list[PartitionId]:
    """Take the oldest names out."""
    chosen = [name for name, _ in zip(names, range(count_max), strict=False)]
    for name in chosen:
        del names[name]
    return chosen
