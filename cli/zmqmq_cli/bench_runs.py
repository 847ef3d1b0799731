"""The runs of ``zmqmq bench``: a plan in, a result out."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from zmqmq import Client, Offset, Producer
from zmqmq.client.opening import LINGER_S, Compression
from zmqmq.errors import TimeoutError
from zmqmq_cli.measure import Pacer, Percentiles, human_rate, keys, number_of, numbered, payloads, percentiles
from zmqmq_cli.params import ACKS

Progress: TypeAlias = Callable[[int], None]

SAMPLE_MESSAGES: Final = 500
"""In a closed loop the latency of one message in so many is taken, or the measuring would be measured."""
CHUNK: Final = 500
OPEN_LOOP_LINGER_S: Final = 0.001
IDLE_SECONDS_MAX: Final = 30.0
"""No message for so long ends a reading run with an error."""
FLUSH_SECONDS_MAX: Final = 60.0
SETTLE_SECONDS: Final = 0.2
"""Between starting a reader and the first message of an open loop."""
PROGRESS_EVERY: Final = 5_000


class Plan(Struct, frozen=True):
    """What to run. It travels to worker processes."""

    brokers: str
    topic: str
    messages: int
    size: int
    warmup: int = 0
    keys: int = 0
    clients: int = 1
    batch: int = CHUNK
    acks: str = "all"
    compression: Compression | None = None
    rate: float | None = None
    linger: float | None = None

    def for_e2e(self, rate_default: float, seconds_max: float | None) -> Plan:
        """An open loop needs a rate, and a bound on its time when it is one of several runs."""
        rate = self.rate or rate_default
        messages = self.messages if seconds_max is None else max(1, min(self.messages, int(rate * seconds_max)))
        return replace(self, rate=rate, messages=messages)


class Result(Struct, frozen=True):
    """What one run measured. ``seconds`` is from the first message to the last acknowledgement or reception."""

    test: str
    plan: Plan
    messages: int
    seconds: float
    latency: Percentiles | None = None

    @property
    def per_second(self) -> float:
        return self.messages / self.seconds

    def row(self) -> dict[str, Any]:
        found = self.latency
        return {
            "test": self.test,
            "messages": self.messages,
            "size": self.plan.size,
            "acks": self.plan.acks,
            "seconds": round(self.seconds, 3),
            "messages_per_second": round(self.per_second),
            "megabytes_per_second": round(self.per_second * self.plan.size / 1e6, 1),
            "rate": self.plan.rate,
            "p50_ms": found and round(found.p50, 3),
            "p99_ms": found and round(found.p99, 3),
            "p999_ms": found and round(found.p999, 3),
            "max_ms": found and round(found.max, 3),
        }

    def line(self) -> str:
        """One line for people."""
        if self.test == "e2e":
            head = f"e2e      at {self.plan.rate:,.0f} msg/s (open loop)"
        else:
            size, acks = (f"{self.plan.size:,} B", f"acks={self.plan.acks}") if self.test == "produce" else ("", "")
            speed = f"{human_rate(self.per_second)} msg/s  {self.per_second * self.plan.size / 1e6:.1f} MB/s"
            head = f"{self.test:<7}  {self.messages:,} msgs  {size:<8}  {acks:<8}  {speed}"
        if self.latency is None:
            return head
        p50, p99, p999, worst = (f"{value:.3g}" for value in self.latency)
        return f"{head}   p50 {p50} ms  p99 {p99} ms  p99.9 {p999} ms  max {worst} ms"


class Part(Struct, frozen=True):
    """What one producing process did. The monotonic clock is the same in all processes of a machine."""

    started: float
    ended: float
    samples: list[float]


def produce(client: Client, plan: Plan, progress: Progress) -> Result:
    """All messages acknowledged, by one process or several."""
    if plan.clients == 1:
        parts = [produce_part(client, plan, plan.messages, progress)]
    else:
        shares = [plan.messages // plan.clients + (index < plan.messages % plan.clients) for index in range(plan.clients)]
        with ProcessPoolExecutor(plan.clients, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(_produce_alone, [plan] * plan.clients, shares))
    seconds = max(part.ended for part in parts) - min(part.started for part in parts)
    samples = [sample for part in parts for sample in part.samples]
    return Result("produce", plan, plan.messages, seconds, percentiles(samples))


def _produce_alone(plan: Plan, count: int) -> Part:
    share = replace(plan, rate=plan.rate and plan.rate / plan.clients, warmup=plan.warmup // plan.clients)
    with Client(plan.brokers, client_id="zmqmq-bench") as client:
        return produce_part(client, share, count, _nobody)


def _nobody(done: int) -> None:
    """Progress of a worker is not shown."""


def produce_part(client: Client, plan: Plan, count: int, progress: Progress) -> Part:
    """Warm up, then send ``count`` messages and wait for their acknowledgements."""
    with _producer(client, plan) as out:
        _send_fast(out, plan, plan.warmup, _nobody)
        out.flush(FLUSH_SECONDS_MAX)
        started = time.monotonic()
        samples = _send_paced(out, plan, count, progress) if plan.rate else _send_fast(out, plan, count, progress)
        out.flush(FLUSH_SECONDS_MAX)
        return Part(started, time.monotonic(), samples)


def _producer(client: Client, plan: Plan) -> Producer[bytes]:
    """An open loop looks at single messages, so they linger less."""
    linger = plan.linger if plan.linger is not None else OPEN_LOOP_LINGER_S if plan.rate else LINGER_S
    return client.producer(plan.topic, acks=ACKS[plan.acks], compression=plan.compression, linger=linger)


def _send_fast(out: Producer[bytes], plan: Plan, count: int, progress: Progress) -> list[float]:
    """A closed loop: as fast as the producer takes them. The time of every batch, or of every so-many-th message."""
    samples: list[float] = []
    values, names = payloads(plan.size), keys(plan.keys)
    step = plan.batch
    value_lists = [[values[(base + i) % len(values)] for i in range(step)] for base in range(0, len(values), step)]
    key_lists = [[names[(base + i) % len(names)] for i in range(step)] for base in range(0, len(names), step)]
    for index in range(0, count, step):
        size = min(step, count - index)
        turn = index // step
        values_now = value_lists[turn % len(value_lists)][:size]
        sent = time.monotonic()
        if step == 1:
            handle = out.send(values_now[0], key=key_lists[turn % len(key_lists)][0])
        else:
            handle = out.send_many(values_now, keys=key_lists[turn % len(key_lists)][:size] if plan.keys else None)[-1]
        if turn % max(1, SAMPLE_MESSAGES // step) == 0:
            handle.add_done_callback(_sampler(samples, sent))
        if index % PROGRESS_EVERY < step:
            progress(index)
    progress(count)
    return samples


def _send_paced(out: Producer[bytes], plan: Plan, count: int, progress: Progress) -> list[float]:
    """An open loop: each message has its time, and its latency counts from then."""
    assert plan.rate
    samples: list[float] = []
    values, names = payloads(plan.size), keys(plan.keys)
    pacer = Pacer(plan.rate)
    for index in range(count):
        due = pacer.wait(index)
        handle = out.send(values[index % len(values)], key=names[index % len(names)])
        handle.add_done_callback(_sampler(samples, due))
        if index % PROGRESS_EVERY == 0:
            progress(index)
    return samples


def _sampler(samples: list[float], since: float) -> Callable[[object], None]:
    return lambda _handle: samples.append(time.monotonic() - since)


def fill(client: Client, plan: Plan) -> None:
    """Messages for a run that only reads."""
    with _producer(client, replace(plan, rate=None)) as out:
        _send_fast(out, plan, plan.messages, _nobody)


def consume(client: Client, plan: Plan, progress: Progress) -> Result:
    """From the start of the topic until as many messages as planned are there."""
    seen = 0
    with client.reader(plan.topic, start=Offset.START, timeout=IDLE_SECONDS_MAX) as reader:
        started = time.monotonic()
        for batch in reader.batches(max_messages=CHUNK):
            seen += len(batch)
            if seen >= plan.messages:
                break
            progress(seen)
        seconds = time.monotonic() - started
    _check_complete(plan, seen)
    return Result("consume", plan, seen, seconds)


def _check_complete(plan: Plan, seen: int) -> None:
    if seen < plan.messages:
        raise TimeoutError(
            f"topic {plan.topic}: {seen:,} of {plan.messages:,} messages came, then none for {IDLE_SECONDS_MAX:.0f} s",
            hint="with --topic, ask for no more messages (-n) than it holds",
        )


def e2e(client: Client, plan: Plan, progress: Progress) -> Result:
    """The reader is a process of its own, as in life; each message carries its number, and so the time it was due."""
    assert plan.rate
    values, names = payloads(plan.size), keys(plan.keys)
    with _Watch(plan) as watch, _producer(client, plan) as out:
        pacer = Pacer(plan.rate, time.monotonic() + SETTLE_SECONDS)
        for index in range(plan.messages):
            pacer.wait(index)
            out.send(numbered(values[index % len(values)], index), key=names[index % len(names)])
            if index % PROGRESS_EVERY == 0:
                progress(index)
        out.flush(FLUSH_SECONDS_MAX)
        seen = watch.result()
    _check_complete(plan, len(seen))
    samples = [at - pacer.due(number) for number, at in seen.items()]
    return Result("e2e", plan, len(seen), max(seen.values()) - pacer.start, percentiles(samples))


class _Watch:
    """A process that notes when each number was first received."""

    def __init__(self, plan: Plan) -> None:
        context = get_context("spawn")
        self._answers, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_watch, args=(plan, theirs), name="zmqmq-bench-reader", daemon=True)

    def __enter__(self) -> _Watch:
        self._process.start()
        self.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(IDLE_SECONDS_MAX)
        self._answers.close()

    def result(self) -> dict[int, float]:
        """First, empty, that it listens; then what it saw."""
        if not self._answers.poll(2 * IDLE_SECONDS_MAX):
            raise TimeoutError("the reading process of the bench does not answer", hint="run it again with fewer messages (-n)")
        answer: dict[int, float] = self._answers.recv()
        return answer


def _watch(plan: Plan, answers: Connection) -> None:
    """In the reading process."""
    seen: dict[int, float] = {}
    with (
        Client(plan.brokers, client_id="zmqmq-bench-reader") as client,
        client.reader(plan.topic, start=Offset.END, timeout=IDLE_SECONDS_MAX) as reader,
    ):
        reader.position()
        answers.send(seen)
        for batch in reader.batches(max_messages=CHUNK):
            now = time.monotonic()
            for message in batch:
                seen.setdefault(number_of(message.value), now)
            if len(seen) >= plan.messages:
                break
        answers.send(seen)


RUNS: Final[dict[str, Callable[[Client, Plan, Progress], Result]]] = {"produce": produce, "consume": consume, "e2e": e2e}
