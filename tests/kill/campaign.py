"""A run of the kill test: a broker that is killed again and again, the parties around it, the audits, the report.

Aims are dealt like cards: each deck holds them in their proportions, so that a short run meets every kind. An audit takes the
testimony first and then reads on in every log; the end reads everything again from the start.
"""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from fuse import AFTER, BEFORE, MIDDLE, Fuse
from ledger import Ledger, Pass, Place
from lives import HERE, Lives, World
from party import Witness
from producers import Lane
from values import identity_of

import zmqmq
from zmqmq.errors import DataLost, ZmqmqError
from zmqmq.model import METADATA_PARTITION
from zmqmq.store.disk import RealDisk
from zmqmq.store.verify import verify_directory

KILL_MS_MIN, KILL_MS_MAX = 5, 400
FUSE_SECONDS_MAX = 1.0
"""A fuse that did not burn by then: the life is killed from outside."""
CALL_SECONDS = 30.0
PARTY_SECONDS_MAX = 90.0
DATA = "data"


BROKER_TOML = """\
replicated_sync_ms = 20
[store]
journal_bytes_max = "64KiB"
journal_allocate_bytes = "16KiB"
open_files_max = 16
checkpoint_ms_max = 120
remove_ms_max = 40
disk_reserve_bytes = 0
"""


class Topic(NamedTuple):
    name: str
    partitions: int
    config: dict[str, str]
    keeps_all: bool = True


TOPICS = (
    Topic("kept", 3, {"segment_bytes": "8KiB"}),
    Topic("quick", 2, {"segment_bytes": "8KiB", "durability": "replicated"}),
    Topic("aged", 2, {"segment_bytes": "4KiB", "retention_bytes": "32KiB", "segment_ms": "700ms"}, keeps_all=False),
    Topic("trimmed", 2, {"segment_bytes": "4KiB"}, keeps_all=False),
)
RETENTION_BYTES = 32 << 10
LANES: tuple[tuple[Lane, ...], ...] = (
    (
        Lane("kept-all", "kept", keyed=True),
        Lane("quick-all", "quick", linger=0.003, burst_max=12),
        Lane("aged-all", "aged", keyed=True, linger=0.001),
        Lane("trimmed-one", "trimmed", acks=1),
    ),
    (
        Lane("kept-one", "kept", acks=1, linger=0.001),
        Lane("kept-hasty", "kept", keyed=True, delivery_timeout=0.08),
        Lane("quick-plain", "quick", idempotent=False, delivery_timeout=5.0, burst_max=2),
        Lane("quick-one", "quick", acks=1, keyed=True, delivery_timeout=1.0),
        Lane("trimmed-plain", "trimmed", acks=1, idempotent=False, keyed=True, delivery_timeout=0.3, burst_max=2),
    ),
)


class Aim(NamedTuple):
    """Where the kill is to hit. ``calls_max`` 0: a moment, from outside."""

    name: str
    cards: int
    pattern: str = ""
    calls_max: int = 0
    in_recovery: bool = False


AIMS = (
    Aim("a moment", 8),
    Aim("any disk call", 3, "", 300),
    Aim("journal", 2, r"(write|sync|allocate) journal/", 60),
    Aim("segment", 2, r"write logs/", 40),
    Aim("checkpoint", 3, r"checkpoint|sync logs/", 24),
    Aim("roll", 2, r"create logs/", 6),
    Aim("removal of segments", 2, r"unlink logs/[0-9a-f]{32}/", 6),
    Aim("topic deletion", 2, r"\.deleted", 6),
    Aim("recovery", 4, "", 12, in_recovery=True),
)


class Report(msgspec.Struct):
    """What a run found. ``wrong`` empty: all promises held."""

    seed: int
    wrong: list[str] = []
    kills: Counter[str] = Counter()
    """By what the kill hit."""
    counts: Counter[str] = Counter()
    lives_with_receipts: int = 0
    audits: int = 0
    seconds: float = 0.0
    records_at_end: int = 0
    offsets_at_end: int = 0

    @property
    def killed(self) -> int:
        return self.kills.total()

    def text(self) -> str:
        rows = [f"  {count:5}  {name}" for name, count in sorted(self.kills.items(), key=lambda item: -item[1])]
        said = [f"  {count:7}  {name}" for name, count in sorted(self.counts.items())]
        head = f"seed {self.seed}: {self.killed} kills in {self.seconds:.0f} s, {self.counts['ack']} records acknowledged"
        lives = f"{self.lives_with_receipts} lives gave receipts, {self.audits} audits"
        logs = f"{self.offsets_at_end} offsets given out, {self.records_at_end} records in the logs at the end"
        return "\n".join([head, lives, logs, "killed in:", *rows, "testimony:", *said, *(f"WRONG  {words}" for words in self.wrong)])


class Campaign:
    """One run in one directory. ``plant`` names a bug of ``too_early`` that the brokers get. ``data`` may lie elsewhere, ``url`` may
    be another than a free port of this machine, and then ``options`` go with it."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        plant: str = "",
        audit_every: int = 10,
        world: World | None = None,
        topics: tuple[Topic, ...] = TOPICS,
        data: Path | None = None,
        url: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        self.report = Report(seed, [], Counter(), Counter())
        self._directory = directory
        self._topics = topics
        self._world = world or World()
        self._data = data or directory / DATA
        self._errors = directory / "errors.txt"
        self._chance = random.Random(seed)
        self._audit_every = audit_every
        self._ledger = Ledger()
        self._passes: dict[Place, Pass] = {}
        self._deck: list[Aim] = []
        self._url = url or f"tcp://127.0.0.1:{free_port()}"
        self._ready_lives = 0
        self._epoch_at: dict[Place, tuple[int, int]] = {}
        self._parties: list[subprocess.Popen[bytes]] = []
        self._witnesses: list[Witness] = []
        config = directory / "broker.toml"
        config.write_text(BROKER_TOML)
        arguments = ["serve", "--config", str(config), "--data", str(self._data), "--listen", self._url, "--http", "none", *options]
        self._lives = Lives(self._data, [*arguments, "--log-level", "warning"], self._errors, plant, self._world)

    def run(self, kills: int, seconds_max: float) -> Report:
        """Kill until there were enough, or the time is over, or something is wrong; then look at everything."""
        started = time.monotonic()
        try:
            self._begin()
            while self.report.killed < kills and time.monotonic() - started < seconds_max and not self._ledger.wrong:
                self._step()
            if not self._ledger.wrong:
                self._finish()
        finally:
            self._close()
        report, ledger = self.report, self._ledger
        report.wrong, report.counts, report.lives_with_receipts = ledger.wrong, ledger.counts, len(ledger.epochs_acked)
        report.seconds = time.monotonic() - started
        return report

    def _step(self) -> None:
        """Something bad."""
        if self.report.killed % self._audit_every == self._audit_every - 1:
            self._audited_life()
        else:
            self._aimed_life()

    def _begin(self) -> None:
        self._start_or_accuse()
        with self._client() as client:
            for topic in self._topics:
                client.admin.create_topic(topic.name, partitions=topic.partitions, config={**topic.config, "compression": "none"})
                for partition in range(topic.partitions):
                    place = Place(topic.name, partition)
                    self._ledger.row(place).keeps_all = topic.keeps_all
                    self._passes[place] = self._ledger.begin_pass(place, 0)
        for number, lanes in enumerate(LANES):
            self._join("producers.py", f"producers-{number}", self._seed(), msgspec.json.encode(lanes).decode())
        losing = ",".join(topic.name for topic in self._topics if not topic.keeps_all)
        self._join("follower.py", "follower", losing, *(f"{place.topic}:{place.partition}" for place in self._passes))
        self._join("changer.py", "changer", self._seed(), "trimmed")
        self._wait_for_load()
        self._lives.end()
        self._count("the first life")

    def _join(self, program: str, name: str, *arguments: str) -> None:
        path = self._directory / f"{name}.testimony"
        self._witnesses.append(Witness(path))
        with self._errors.open("a") as errors:
            command = [sys.executable, "-W", "error", str(HERE / program), self._url, str(path), *arguments]
            self._parties.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors))

    def _wait_for_load(self) -> None:
        """Until every party has spoken."""
        deadline = time.monotonic() + PARTY_SECONDS_MAX
        silent = list(self._witnesses)
        while silent and time.monotonic() < deadline:
            self._lives.live_for(0.02)
            silent = [witness for witness in silent if not self._hear(witness)]
            self._check_parties()
        if silent:
            self._ledger.accuse(f"{len(silent)} parties never spoke: {self._tail()}")

    def _start_or_accuse(self, fuse: Fuse | None = None) -> bool:
        is_ready = self._lives.start(fuse)
        self._ready_lives += is_ready
        if not is_ready and not self._lives.burned:
            self._ledger.accuse(f"the broker did not start, status {self._lives.status}: {self._tail()}")
        return is_ready

    def _aimed_life(self) -> None:
        if not self._deck:
            self._deck = [aim for aim in AIMS for _ in range(aim.cards)]
            self._chance.shuffle(self._deck)
        aim = self._deck.pop()
        fuse = None
        if aim.calls_max:
            calls = self._chance.randint(1, aim.calls_max)
            fuse = Fuse(aim.pattern, calls, self._chance.choice((BEFORE, MIDDLE, AFTER)), is_armed=aim.in_recovery)
        if self._start_or_accuse(fuse):
            seconds = self._chance.uniform(KILL_MS_MIN, KILL_MS_MAX) / 1000 if fuse is None else FUSE_SECONDS_MAX
            if self._lives.live_for(seconds):
                self._lives.end()
                self._count("a moment")
                return
        elif self._lives.burned:
            self._count("recovery")
            return
        if self._lives.burned:
            self._count(aim.name)
        else:
            self._ledger.accuse(f"the broker ended by itself, status {self._lives.status}: {self._tail()}")

    def _audited_life(self) -> None:
        if self._start_or_accuse():
            self._audit()
            self._lives.live_for(self._chance.uniform(0, KILL_MS_MAX) / 1000)
            self._lives.end()
            self._count("a moment")

    def _count(self, what: str) -> None:
        self.report.kills[what] += 1
        status = self._lives.status
        if status != -signal.SIGKILL:
            self._ledger.accuse(f"the broker ended with {status} before it was killed: {self._tail()}")

    def _audit(self) -> None:
        self.report.audits += 1
        for witness in self._witnesses:
            self._hear(witness)
        self._check_parties()
        heard = {place: self._ledger.row(place).end for place in self._passes}
        try:
            with self._client() as client:
                self._check_epochs(client)
                for place, reading in self._passes.items():
                    self._read_on(client, reading)
                    reading.end(heard[place])
        except ZmqmqError as error:
            self._ledger.accuse(f"an audit got {type(error).__name__}: {error}")

    def _read_on(self, client: zmqmq.Client, reading: Pass) -> None:
        topic, partition = reading.place
        while True:
            start = zmqmq.Offset.exact(reading.expected)
            try:
                with client.reader(topic, partitions=[partition], start=start, stop=zmqmq.Offset.END) as reader:
                    for message in reader:
                        reading.read(message.offset, message.leader_epoch, identity_of(message.raw_value))
            except DataLost as lost:
                reading.skip_to(lost.log_start)
            else:
                return

    def _check_epochs(self, client: zmqmq.Client) -> None:
        """Each life that became ready has a leader epoch of its own."""
        for topic in self._topics:
            for partition in client.admin.describe_topic(topic.name).partitions:
                place = Place(topic.name, partition.partition)
                epoch, lives = self._epoch_at.get(place, (-1, self._ready_lives - 1))
                if partition.leader_epoch - epoch < self._ready_lives - lives:
                    self._ledger.accuse(f"{place}: epoch {partition.leader_epoch}, {self._ready_lives - lives} lives ago it was {epoch}")
                self._epoch_at[place] = (partition.leader_epoch, self._ready_lives)

    def _hear(self, witness: Witness) -> bool:
        lines = witness.lines()
        for line in lines:
            kind = line.partition(" ")[0]
            if kind in {"did", "topic"}:
                self._ledger.counts[line if kind == "did" else kind] += 1
            else:
                self._ledger.hear(line)
        return bool(lines)

    def _check_parties(self) -> None:
        for party in self._parties:
            if party.poll() not in {None, 0}:
                self._ledger.accuse(f"{Path(str(party.args[4])).name} died with {party.returncode}: {self._tail()}")  # type: ignore[index]

    def _finish(self) -> None:
        """With the broker up: everybody says the last word, then every log is read from its start; then the files."""
        if not self._lives.is_alive and not self._start_or_accuse():
            return
        self._dismiss()
        self._audit()
        self._read_all()
        self._lives.end()
        self._verify("killed")
        if self._start_or_accuse():
            with self._client() as client:
                topics = {topic.name: topic.topic_id.hex() for topic in client.admin.topics()}
            if (status := self._lives.end(signal.SIGTERM)) != 0:
                self._ledger.accuse(f"a clean stop ended with {status}: {self._tail()}")
            self._verify("stopped")
            self._check_directories(set(topics.values()))
            self._check_retention(topics["aged"])

    def _dismiss(self) -> None:
        for party in self._parties:
            assert party.stdin is not None
            party.stdin.close()
        for party in self._parties:
            with contextlib.suppress(subprocess.TimeoutExpired):
                party.wait(PARTY_SECONDS_MAX)
            if party.returncode != 0:
                self._ledger.accuse(f"a party ended with {party.returncode}: {self._tail()}")

    def _read_all(self) -> None:
        passes = []
        with self._client() as client:
            for place in self._passes:
                start = client.admin.offsets(place.topic)[place.partition].start
                reading = self._ledger.begin_pass(place, start)
                self._read_on(client, reading)
                reading.end(self._ledger.row(place).end)
                passes.append(reading)
        self._ledger.finish(passes)
        self.report.records_at_end = sum(reading.expected - reading.start for reading in passes)
        self.report.offsets_at_end = sum(reading.expected for reading in passes)

    def _verify(self, how: str) -> None:
        for finding in verify_directory(RealDisk(), str(self._data)).findings:
            if finding.severity == "error" or (how == "stopped" and self._world.keeps_unsynced):
                self._ledger.accuse(f"{how}: {finding.severity} in {finding.file} at {finding.position}: {finding.what}")

    def _check_directories(self, topics: set[str]) -> None:
        """Nothing of a deleted topic is left."""
        left = {path.name for path in (self._data / "logs").iterdir()} - topics - {METADATA_PARTITION.topic_id.hex()}
        if left:
            self._ledger.accuse(f"directories of no topic are left: {sorted(left)}")

    def _check_retention(self, topic_id: str) -> None:
        """Retention by size leaves at least that size."""
        for place in self._passes:
            size = sum(path.stat().st_size for path in (self._data / "logs" / topic_id / str(place.partition)).glob("*.log"))
            if place.topic == "aged" and self._ledger.row(place).log_start and size < RETENTION_BYTES and self._world.keeps_unsynced:
                self._ledger.accuse(f"{place}: retention left {size} bytes of {RETENTION_BYTES}")

    def _close(self) -> None:
        for party in self._parties:
            if party.poll() is None:
                party.kill()
                party.wait(PARTY_SECONDS_MAX)
            assert party.stdin is not None
            party.stdin.close()
        self._lives.close()

    @contextlib.contextmanager
    def _client(self) -> Iterator[zmqmq.Client]:
        client = zmqmq.Client(self._url, timeout=CALL_SECONDS)
        try:
            yield client
        finally:
            client.close()

    def _seed(self) -> str:
        return str(self._chance.getrandbits(32))

    def _tail(self) -> str:
        return self._errors.read_text(errors="replace")[-2_000:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
