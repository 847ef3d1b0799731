"""Planted bugs in replication: leaders, followers, in-sync sets, truncation. See ``mutants_cluster.py`` for the rest of a cluster."""

from __future__ import annotations

from typing import Final

from mutation import FIRST_CLUSTER, Edit, Mutation

_STORIES: Final = "tests/replication/test_replica_stories.py::"
_DESKS: Final = "tests/replication/test_replica_following.py::"
_LIVES: Final = "tests/replication/test_replica_world.py"


def _one(name: str, breaks: str, file: str, old: str, new: str, *stories: str) -> Mutation:
    return Mutation(f"cluster: {name}", breaks, [Edit(f"replication/{file}", old, new)], stories, FIRST_CLUSTER)


REPLICATION_MUTATIONS: Final = (
    _one(
        "acknowledged by the leader alone", "a receipt of acks=all leaves when every in-sync replica holds the record", "leader.py",
        "min(self._safe_end(member) for member in self.in_sync.counted)",
        "self._safe_end(self.node_id)",
    ),
    _one(
        "acknowledged before followers synced", "under fsync a record counts when it is on the disks of all in-sync replicas", "leader.py",
        "        return progress.synced_end if self._is_fsync else progress.end\n",
        "        return progress.end\n",
    ),
    _one(
        "acknowledged before the minimum in sync", "a watermark moves only with min_insync_replicas members", "leader.py",
        "        if len(self.leadership.isr) >= self.config.min_insync_replicas:\n            self.high",
        "        if True:\n            self.high",
    ),
    _one(
        "proposed member not counted", "who may be elected counts from the proposal on (KIP-497)", "leader.py",
        "in self.in_sync.counted)",
        "in self.in_sync.committed)",
    ),
    _one(
        "shrink counted before its commit", "who may be elected counts until the metadata log says otherwise", "insync.py",
        "        self.counted = (*self.counted, *(node for node in members if node not in self.counted))\n",
        "        self.counted = members\n",
    ),
    _one(
        "refused member not counted any more", "a refused proposal may be committed until a newer epoch voids it", "insync.py",
        "        self._is_open = False\n        self._is_refused = len(",
        "        self._is_open = False\n        self.counted = self.committed\n        self._is_refused = len(",
    ),
    _one(
        "joins before the epoch's start", "who joins holds all that was there when the epoch began (KIP-966)", "leader.py",
        ">= max(self.high_watermark, self.epoch_start)",
        ">= self.high_watermark",
    ),
    _one(
        "joins before it synced", "who joins holds what is committed as safely as the topic asks", "leader.py",
        "        return self._safe_end(node) >= max(",
        "        return progress.end >= max(",
    ),
    _one(
        "watermark at the log end after an election", "a new leader does not know what is committed", "leader.py",
        "max(state.log_start, min(high_watermark, known_end))",
        "max(state.log_start, known_end)",
    ),
    _one(
        "reports of another epoch counted", "a follower's word counts in the epoch in which it was compared", "leader.py",
        "report.leader_epoch != self.leadership.epoch or not is_member",
        "not is_member",
    ),
    _one(
        "reports of an earlier life counted", "a broker that restarted holds less than its last life said", "leading.py",
        "self._alive.get(report.node_id) != report.broker_epoch:",
        "False:",
    ),
    _one(
        "overtaken reports counted", "the newest word of a follower counts", "leading.py",
        "        if report.number <= follower.report_number:\n",
        "        if False:\n",
    ),
    _one(
        "slow followers out at once", "a follower has LAG_MS_MAX to catch up", "insync.py",
        "            if then_ms > now_ms - LAG_MS_MAX:\n",
        "            if False:\n",
    ),
    _one(
        "slow followers never out", "a follower that lags does not hold up the others for longer than LAG_MS_MAX", "insync.py",
        "            if then_ms > now_ms - LAG_MS_MAX:\n",
        "            if True:\n",
    ),
    _one(
        "fetch of another epoch answered", "leader and follower speak of the same epoch (KIP-320)", "answering.py",
        "    if entry.leader_epoch != epoch:\n",
        "    if False:\n",
    ),
    _one(
        "logs not compared", "a follower goes on only behind a batch that the leader holds too (KIP-101)", "answering.py",
        "        if parting is not None:\n",
        "        if False:\n",
    ),
    _one(
        "logs compared by their length", "equal offsets are no equal records (KIP-101)", "answering.py",
        "    return None if found == entry.last_epoch and entry.end <= end else (found, end)",
        "    return None if entry.end <= leader.log_end else (found, end)",
    ),
    _one(
        "cut at the leader's end of the epoch", "logs may have parted before it (KIP-279)", "follower.py",
        "        target = min(result.parting_end, own_end)\n",
        "        target = result.parting_end\n",
    ),
    _one(
        "cut at the watermark", "a watermark may be late: what is above it may be committed (KIP-101)", "follower.py",
        "        self._drop_held()\n\n    def heal",
        "        self._drop_held()\n        if self.high_watermark < self.log_end:\n"
            "            self._cut(Truncate(self.partition, self.high_watermark))\n\n    def heal",
    ),
    _one(
        "epochs not cut with the log", "the epochs are those of the batches that are there", "follower.py",
        "        self.epochs = cut_at(self.epochs, end)\n",
        "",
    ),
    _one(
        "stream of another epoch appended", "only what the leader of this epoch says is appended", "follower.py",
        "        if header.leader_epoch != self.leader_epoch or self.is_cutting:\n",
        "        if self.is_cutting:\n",
    ),
    _one(
        "stream appended before the comparison", "a follower appends when its log was compared with the leader's", "follower.py",
        "        if self.is_validated:\n            batches",
        "        if True:\n            batches",
    ),
    _one(
        "lost tail of the stream not noticed", "a beat shows what the stream lost", "follower.py",
        '            reached("beat shows a lost tail")\n            self.wants_fetch = True\n',
        '            reached("beat shows a lost tail")\n',
    ),
    _one(
        "late answers taken for new ones", "an answer belongs to the fetch whose number it carries", "following.py",
        " or message.number != link.number",
        "",
    ),
    _one(
        "corrupt member heals in the in-sync set", "an in-sync replica holds what is committed", "following.py",
        "        if follower.is_corrupt and not is_in_sync:\n",
        "        if follower.is_corrupt:\n",
    ),
)  # fmt: skip
