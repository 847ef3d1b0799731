"""Members whose every message waits until the test delivers or drops it; for stories that must happen in one order."""

from __future__ import annotations

import random
from collections.abc import Iterable

from raft_store import MemoryDisk

from zmqmq.metadata.quorum.core import Settings
from zmqmq.metadata.quorum.effects import Apply, Event, Persist, Restore, SendMessage
from zmqmq.metadata.quorum.machine import Raft
from zmqmq.metadata.quorum.messages import Message, RequestVote, Vote
from zmqmq.metadata.quorum.state import Configuration, Entry, Member

TURNS_MAX = 100


class Hands:
    """Time stands still unless ``later`` moves it; only ``campaign`` and ``tick`` let a member look at it."""

    def __init__(self, voters: int, learners: int = 0, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.now_ms = 1_000
        self.mail: list[Message] = []
        self.events: dict[int, list[Event]] = {}
        self.applied: dict[int, list[Entry]] = {}
        self.rafts: dict[int, Raft] = {}
        self.disks: dict[int, MemoryDisk] = {}
        self.syncs = True
        """Off: what is written is not synced until ``sync``."""
        members = [Member(number, "a") for number in range(1, voters + learners + 1)]
        self.configuration = Configuration(tuple(members[:voters]), tuple(members[voters:]))
        for member in members:
            self.disks[member.node_id] = MemoryDisk(self.configuration)
            self.open(member.node_id)

    def __getitem__(self, number: int) -> Raft:
        return self.rafts[number]

    def open(self, number: int) -> None:
        self.applied[number], self.events[number] = [], []
        self.rafts[number] = Raft(Member(number, "a"), self.settings, self.disks[number].visible, random.Random(number))
        self.rafts[number].start(self.now_ms)
        self.turn(number)

    def crash(self, number: int) -> None:
        """What was not synced is lost, and its mail too."""
        del self.rafts[number]
        self.disks[number].crash(random.Random(0), keeps_nothing=True)
        self.mail = [message for message in self.mail if number not in (message.source.node_id, message.target.node_id)]

    def turn(self, number: int) -> None:
        raft, disk = self.rafts[number], self.disks[number]
        for _ in range(TURNS_MAX):
            effects = raft.take_effects()
            if not effects:
                return
            for effect in effects:
                if isinstance(effect, Persist):
                    disk.perform(effect)
                    if self.syncs:
                        disk.sync(effect.number)
                        raft.on_persisted(effect.number, self.now_ms)
                elif isinstance(effect, SendMessage):
                    self.mail.append(effect.message)
                else:
                    self.events[number].append(effect)
                    if isinstance(effect, Apply):
                        self.applied[number].extend(effect.entries)
        raise AssertionError(f"{raft} never comes to rest")

    def sync(self, number: int) -> None:
        for persist in list(self.disks[number]._pending):
            self.disks[number].sync(persist.number)
            self.rafts[number].on_persisted(persist.number, self.now_ms)
        self.turn(number)

    def tell(self, message: Message) -> None:
        number = message.target.node_id
        if number in self.rafts:
            self.rafts[number].on_message(message, self.now_ms)
            self.turn(number)

    def take(self, kind: type, source: int, target: int) -> Message:
        """The first such message, out of the mail."""
        for message in self.mail:
            if isinstance(message, kind) and (message.source.node_id, message.target.node_id) == (source, target):
                self.mail.remove(message)
                return message
        raise AssertionError(f"no {kind.__name__} from {source} to {target} in {self.mail}")

    def deliver(self, *numbers: int) -> None:
        """All mail among these members, and what comes of it; the rest is dropped."""
        for _ in range(TURNS_MAX):
            mail, self.mail = self.mail, []
            wanted = [message for message in mail if {message.source.node_id, message.target.node_id} <= set(numbers)]
            if not wanted:
                return
            for message in wanted:
                self.tell(message)
        raise AssertionError("the mail never ends")

    def later(self, milliseconds: int = 1_000) -> None:
        self.now_ms += milliseconds

    def tick(self, number: int) -> None:
        self.rafts[number].on_time(self.now_ms)
        self.turn(number)

    def campaign(self, number: int, voters: Iterable[int]) -> None:
        """It stands for election until it wins, and only these hear of it; its first messages as the leader wait in the mail."""
        self.mail.clear()
        for _ in range(TURNS_MAX):
            if self.rafts[number].is_leader:
                self.mail = [message for message in self.mail if not isinstance(message, RequestVote | Vote)]
                return
            asked = [message for message in self.mail if isinstance(message, RequestVote) and message.target.node_id in voters]
            self.mail.clear()
            if not asked:
                self.later()
                self.tick(number)
            for message in asked:
                self.tell(message)
            votes = [message for message in self.mail if isinstance(message, Vote)]
            self.mail = [message for message in self.mail if not isinstance(message, Vote)]
            for message in votes:
                self.tell(message)
        raise AssertionError(f"{self.rafts[number]} was not elected")

    def propose(self, number: int, text: bytes, proposal_id: int = 1) -> None:
        raft = self.rafts[number]
        raft.append(raft.term, raft.log_end, proposal_id, (text,), self.now_ms)
        self.turn(number)

    def change(self, number: int, configuration: Configuration, proposal_id: int = 1) -> None:
        raft = self.rafts[number]
        raft.change(raft.term, raft.log_end, proposal_id, configuration, self.now_ms)
        self.turn(number)

    def texts(self, number: int) -> list[bytes]:
        return [record for entry in self.applied[number] for record in entry.records]

    def restored(self, number: int) -> list[int]:
        return [event.snapshot.meta.end for event in self.events[number] if isinstance(event, Restore)]
