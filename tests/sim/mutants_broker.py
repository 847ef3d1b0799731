"""Planted bugs in what decides: leader, broker's desks, metadata, client."""

from __future__ import annotations

from typing import Final

from mutation import Edit, Mutation

BROKER_MUTATIONS: Final = (
    Mutation(
        "watermark before the sync",
        "under fsync a receipt leaves when the record is on disk",
        [
            Edit(
                "replication/leader.py",
                "            return self.synced_end if self._is_fsync else self.log_end\n",
                "            return self.log_end\n",
            )
        ],
    ),
    Mutation(
        "acks=1 before the sync",
        "under fsync a receipt leaves when the record is on disk",
        [
            Edit(
                "replication/leader.py",
                "        return self._synced if acks and self._is_fsync else self._written\n",
                "        return self._written\n",
            )
        ],
    ),
    Mutation(
        "duplicate answered before its original is safe",
        "a duplicate is answered when its original has reached the promised level",
        [
            Edit(
                "replication/leader.py",
                "        bisect.insort_right(waits, waiting, key=_end_of)\n        self._resolve()\n",
                "        self._receipts.append((waiting.ticket, waiting.error or self._receipt(waiting)))\n",
            )
        ],
    ),
    Mutation(
        "reader past the watermark",
        "a reader sees no record that may still be taken back",
        [
            Edit("broker/fetch.py", "        if entry.offset >= leader.high_watermark:\n", "        if entry.offset >= leader.log_end:\n"),
            Edit(
                "broker/fetch.py",
                "            entry.offset,\n            leader.high_watermark,\n",
                "            entry.offset,\n            leader.log_end,\n",
            ),
        ],
    ),
    Mutation(
        "fetch below the log start",
        "deleted records are not read",
        [
            Edit("replication/leader.py", "        if offset < self.log_start:\n", "        if False:\n"),
            Edit("store/reading.py", "    if offset < log.log_start:\n", "    if False:\n"),
        ],
    ),
    Mutation(
        "producers not restored at open",
        "a retry after a restart is written once",
        [Edit("replication/leader.py", "ProducerStates(state.producers)", "ProducerStates()")],
    ),
    Mutation(
        "producers not rewound when an append failed",
        "a retry of what was not written is written",
        [Edit("replication/leader.py", "        self.producers.restore(self._undo_producers)\n", "")],
    ),
    Mutation(
        "gaps in sequences accepted",
        "batches of a producer are written in order",
        [
            Edit(
                "producer_state.py",
                '        raise OutOfOrderSequence(f"{name} sent sequence {header.base_sequence}, {expected} is next")\n',
                "        return None\n",
            )
        ],
    ),
    Mutation(
        "unknown producer accepted in the middle of its row",
        "batches of a producer are written in order",
        [
            Edit(
                "producer_state.py",
                "            if header.base_sequence != 0:\n                reached(",
                "            if False:\n                reached(",
            )
        ],
    ),
    Mutation(
        "new producer epoch accepted in the middle of its row",
        "batches of a producer are written in order",
        [
            Edit(
                "producer_state.py",
                "            if header.base_sequence != 0:\n                raise OutOfOrderSequence(",
                "            if False:\n                raise OutOfOrderSequence(",
            )
        ],
        ["tests/sim/test_sim_stories.py::test_the_first_batch_of_a_new_producer_epoch_is_not_overtaken"],
    ),
    Mutation(
        "duplicates not recognised",
        "a retry is written once",
        [
            Edit(
                "producer_state.py",
                "batch.base_sequence == header.base_sequence and batch.last_sequence == header.last_sequence",
                "batch.base_sequence == header.base_sequence == -2",
            ),
            Edit("producer_state.py", "        if behind < SEQUENCE_MODULUS // 2:\n", "        if behind < 0:\n"),
            Edit(
                "producer_state.py",
                '        raise OutOfOrderSequence(f"{name} sent sequence {header.base_sequence}, {expected} is next")\n',
                "        return None\n",
            ),
        ],
    ),
    Mutation(
        "leader epoch not raised at open",
        "an (offset, epoch) names one record for ever",
        [Edit("metadata/image.py", "partition.leader_epoch + count, ", "partition.leader_epoch, ")],
    ),
    Mutation(
        "metadata term not raised at open",
        "an (index, term) names one record for ever",
        [Edit("metadata/local.py", "state.epochs[-1].epoch + 1 if", "state.epochs[-1].epoch if")],
    ),
    Mutation(
        "producer ids given out again after a restart",
        "two producers never share an id",
        [Edit("metadata/controller.py", "self.pending.producer_ids_end + PRODUCER_ID_BLOCK", "PRODUCER_ID_BLOCK")],
    ),
    Mutation(
        "deletion of a topic answered before it is committed",
        "a topic that was deleted is gone",
        [
            Edit(
                "broker/topics.py",
                "        if decision.records:\n            self._propose(decision, asked)\n",
                "        if isinstance(request, DeleteTopic):\n            self._propose(decision, None)\n"
                "            self._dispatch.reply(asked.source, DoneReply(asked.correlation_id))\n"
                "        elif decision.records:\n            self._propose(decision, asked)\n",
            )
        ],
    ),
    Mutation(
        "deletion of records answered before it is durable",
        "records whose deletion was answered do not come back",
        [
            Edit(
                "broker/ends.py",
                "            leader.move_start(moved.log_start)\n",
                "            leader.move_start(moved.log_start)\n            self.on_start_synced(moved)\n",
            )
        ],
    ),
    Mutation(
        "retry without its sequence",
        "a retry is written once",
        [
            Edit(
                "client/sender.py",
                "            data = batch.sealed or self._seal(lane, batch)\n",
                "            data = batch.seal(NO_PRODUCER, 0, NO_SEQUENCE) if batch.sealed else self._seal(lane, batch)\n",
            )
        ],
    ),
    Mutation(
        "retry with a new sequence",
        "a retry is written once",
        [
            Edit(
                "client/sender.py",
                "            data = batch.sealed or self._seal(lane, batch)\n",
                "            lane.sent -= bool(batch.sealed)\n            data = self._seal(lane, batch)\n",
            )
        ],
    ),
    Mutation(
        "epoch not raised behind a hole in the sequences",
        "a row of sequences begins once",
        [
            Edit(
                "client/sender.py",
                "            if self._identity is None or self._identity == lane.identity:\n",
                "            if self._identity is None:\n",
            )
        ],
    ),
    Mutation(
        "sent batches renumbered",
        "only what was certainly not written gets a new sequence",
        [
            Edit(
                "client/sender.py",
                "        if lane.is_broken and lane.sent and any(batch.maybe_written or batch.in_flight for batch in lane.batches):\n",
                "        if False:\n",
            )
        ],
        ["tests/sim/test_sim_stories.py::test_what_may_be_written_keeps_its_sequence_when_a_predecessor_ends_as_unknown"],
    ),
    Mutation(
        "hole declared while predecessors are under way",
        "a row of sequences ends only when nothing can fill its hole",
        [
            Edit(
                "client/sender.py",
                "        if lane.batches[0] is not batch or (lane.is_failing and isinstance(error, OutOfOrderSequence)):\n",
                "        if False:\n",
            )
        ],
    ),
    Mutation(
        "unknown outcomes told as not written",
        "not_written is said only of what is in no log",
        [
            Edit(
                "client/sender.py",
                "        undecided = batch.maybe_written or batch.in_flight\n",
                "        undecided = False\n",
            )
        ],
    ),
    Mutation(
        "answers matched by their order",
        "an answer belongs to the request whose number it carries",
        [
            Edit(
                "client/session.py",
                "        pending = self._forget(reply.correlation_id)\n",
                "        pending = self._forget(next(iter(self._pending), 0))\n",
            )
        ],
    ),
    Mutation(
        "reader keeps what it had already",
        "a reader gets each record once",
        [
            Edit(
                "client/fetcher.py",
                "        wanted = partition.position\n        if header",
                "        wanted = header.base_offset\n        if header",
            )
        ],
    ),
    Mutation(
        "bodies not checked by readers",
        "a damaged record is reported, never handed out",
        [Edit("client/intake.py", "        check_body(header, data, position)\n", "")],
    ),
)
