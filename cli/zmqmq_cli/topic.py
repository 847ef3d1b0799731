"""``zmqmq topic``: create, list, describe, alter, delete, trim and look up offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from zmqmq_cli.lazy import Command, LazyGroup
from zmqmq_cli.output import Column, human_bytes_cell, table
from zmqmq_cli.params import PARTITIONS, SETTING
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from zmqmq import Client, Offset
    from zmqmq.client.admin import Partition, Topic
    from zmqmq.wire.replies import PartitionStats

_TOPIC_COLUMNS: Final = (Column("topic"), Column("partitions"), Column("replication"), Column("config", wide=True))
_PARTITION_COLUMNS: Final = (
    Column("topic"), Column("partition"), Column("leader"), Column("epoch"), Column("replicas"), Column("isr"),
    Column("start"), Column("end"), Column("size_bytes", "SIZE", human_bytes_cell), Column("error", wide=True),
)  # fmt: skip
_OFFSET_COLUMNS: Final = (Column("topic"), Column("partition"), Column("start"), Column("end"))
_AT_COLUMNS: Final = (*_OFFSET_COLUMNS[:2], Column("start", "OFFSET"), Column("end"))


@click.group("topic", cls=LazyGroup)
def topic() -> None:
    """Create, list, describe, alter, delete, trim topics."""


@topic.command("create", cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("-p", "--partitions", type=click.IntRange(min=1), help="[1]")
@click.option("-r", "--replication-factor", type=click.IntRange(min=1), help="[min(3, brokers)]")
@click.option(
    "-c", "--config", "--set", "config", type=SETTING, multiple=True, metavar="KEY=VALUE", help="A setting, such as retention_ms=7d."
)
@click.option("--if-not-exists", is_flag=True, help="An existing topic is fine.")
@click.pass_obj
def create(
    settings: Settings,
    *,
    names: tuple[str, ...],
    partitions: int | None,
    replication_factor: int | None,
    config: tuple[tuple[str, str], ...],
    if_not_exists: bool,
) -> None:
    """Create topics."""
    from zmqmq.errors import TopicExists

    asked = Asked(partitions, replication_factor, dict(config))
    with settings.client() as client:
        for name in names:
            is_new = True
            try:
                made = client.admin.create_topic(
                    name, partitions=partitions or 0, replication_factor=replication_factor or 0, config=asked.config
                )
            except TopicExists:
                if not if_not_exists:
                    raise
                made, is_new = client.admin.describe_topic(name), False
            row = {**_topic_row(made), "created": is_new}
            verb = "created" if is_new else "exists "
            settings.output.one(row, f"{verb} {name}  partitions {row['partitions']}  replication {row['replication']}")
            differences = [] if is_new else asked.differences(made)
            if differences:
                settings.output.note(f"{name} is not as asked: {', '.join(differences)}; nothing was changed")


class Asked(NamedTuple):
    """What ``create`` was asked for."""

    partitions: int | None
    replication_factor: int | None
    config: dict[str, str]

    def differences(self, made: Topic) -> list[str]:
        """In what an existing topic is another one."""
        from zmqmq.topic_config import describe_config, parse_config

        wanted = describe_config(parse_config(self.config))
        pairs: list[tuple[str, object, object]] = [
            ("partitions", made.partition_count, self.partitions),
            ("replication", made.replication_factor, self.replication_factor),
            *((name, made.config[name], wanted[name]) for name in self.config),
        ]
        return [f"{name} {there}, not {asked}" for name, there, asked in pairs if asked is not None and there != asked]


def _topic_row(found: Topic) -> dict[str, Any]:
    return {
        "topic": found.name,
        "partitions": found.partition_count,
        "replication": found.replication_factor,
        "config": found.overrides,
    }


@topic.command("list", cls=Command)
@click.option("--internal", is_flag=True, help="The topics of zmqmq itself too.")
@click.option("--under-replicated", is_flag=True, help="Only topics that lack in-sync replicas.")
@click.option("-n", "--names", is_flag=True, help="Names only.")
@click.pass_obj
def list_(settings: Settings, *, internal: bool, under_replicated: bool, names: bool) -> None:
    """List topics."""
    with settings.client() as client:
        found = client.admin.topics(internal=internal)
    if under_replicated:
        found = [each for each in found if each.under_replicated]
    settings.output.rows([_topic_row(each) for each in found], _TOPIC_COLUMNS[:1] if names else _TOPIC_COLUMNS)


@topic.command("describe", cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--partitions", "parts", flag_value="partitions", multiple=True, help="Only the partitions.")
@click.option("--configs", "parts", flag_value="configs", multiple=True, help="Only the settings.")
@click.option("--storage", "parts", flag_value="storage", multiple=True, help="Only offsets and sizes.")
@click.pass_obj
def describe(settings: Settings, *, names: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """Describe topics: settings, partitions, offsets, sizes."""
    with settings.client() as client:
        found = [client.admin.describe_topic(name) for name in names]
        led = [row for stats in client.admin.stats() for row in stats.partitions if row.leader == stats.node_id]
    for each in found:
        row = _described(each, {stats.partition: stats for stats in led if stats.topic == each.name})
        settings.output.one(row, _description(row, set(parts or ("configs", "partitions", "storage"))))


def _described(found: Topic, stats: Mapping[int, PartitionStats]) -> dict[str, Any]:
    """All that is known of a topic, for programs."""
    details = [_partition_row(partition, stats.get(partition.partition)) for partition in found.partitions]
    return {**_topic_row(found), "settings": found.config, "details": details}


def _partition_row(partition: Partition, stats: PartitionStats | None) -> dict[str, Any]:
    return {
        "partition": partition.partition,
        "leader": partition.leader,
        "epoch": partition.leader_epoch,
        "replicas": partition.replicas,
        "isr": partition.isr,
        "start": stats and stats.log_start,
        "end": stats and stats.high_watermark,
        "size_bytes": stats and stats.size_bytes,
        "error": partition.error or (stats.error if stats else ""),
    }


def _description(row: Mapping[str, Any], parts: Collection[str]) -> str:
    """The same for people: a line, the settings (those that were set are marked), the partitions."""
    blocks = [f"{row['topic']}  partitions {row['partitions']}  replication {row['replication']}\n"]
    if "configs" in parts:
        lines = [
            {"name": f"  {name}", "value": value, "set": "set" if name in row["config"] else ""} for name, value in row["settings"].items()
        ]
        blocks.append(table(lines, (Column("name"), Column("value"), Column("set", show=str)), header=False))
    columns = [column for column in _PARTITION_COLUMNS if column.name in _shown_columns(parts)]
    if len(columns) > 1:
        blocks.append(table(row["details"], columns, header=True))
    blocks += [f"partition {detail['partition']} is out of service: {detail['error']}\n" for detail in row["details"] if detail["error"]]
    return "".join(blocks).removesuffix("\n")


def _shown_columns(parts: Collection[str]) -> set[str]:
    leadership = {"leader", "epoch", "replicas", "isr"} if "partitions" in parts else set()
    storage = {"start", "end", "size_bytes"} if "storage" in parts else set()
    return {"partition"} | leadership | storage


@topic.command("alter", cls=Command)
@click.argument("name")
@click.option(
    "--set", "-c", "--config", "set_", type=SETTING, multiple=True, metavar="KEY=VALUE", help="Change a setting; repeat for more."
)
@click.option("--unset", multiple=True, metavar="KEY", help="Back to the default; repeat for more.")
@click.pass_obj
def alter(settings: Settings, *, name: str, set_: tuple[tuple[str, str], ...], unset: tuple[str, ...]) -> None:
    """Change settings of a topic."""
    if not set_ and not unset:
        raise click.UsageError("nothing to change: give --set KEY=VALUE or --unset KEY", click.get_current_context())
    with settings.client() as client:
        changed = client.admin.alter_topic(name, set=dict(set_), unset=list(unset))
    config = dict(changed.overrides)
    shown = " ".join(f"{key}={value}" for key, value in config.items())
    settings.output.one({"topic": name, "config": config}, f"altered {name}  {shown}".rstrip())


@topic.command("delete", cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(settings: Settings, *, names: tuple[str, ...], yes: bool) -> None:
    """Delete topics and all their records."""
    settings.confirm(f"Delete {', '.join(names)} and all records?", yes=yes)
    with settings.client() as client:
        for name in names:
            client.admin.delete_topic(name)
            settings.output.one({"topic": name}, f"deleted {name}")


@topic.command("trim", cls=Command)
@click.argument("name")
@click.option("-p", "--partition", "partitions", type=PARTITIONS, help="Only these: 0,3 or 0-5. [all]")
@click.option(
    "--to", required=True, metavar="OFFSET|@TIME|end", help="Records before this go; a number needs -p unless there is one partition."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def trim(settings: Settings, *, name: str, partitions: tuple[int, ...] | None, to: str, yes: bool) -> None:
    """Delete the oldest records of a topic."""
    place = _place(to)
    settings.confirm(f"Delete the records of {name} before {to}?", yes=yes)
    with settings.client() as client:
        starts = client.admin.delete_records(name, _trim_places(client, name, partitions, place))
    rows = [{"topic": name, "partition": partition, "start": start} for partition, start in sorted(starts.items())]
    settings.output.rows(rows, _OFFSET_COLUMNS[:3])


def _trim_places(client: Client, name: str, partitions: tuple[int, ...] | None, place: Offset) -> dict[int, int]:
    """The new start of each partition. A number that lies beyond the end is a mistake and not a wish to delete everything."""
    from zmqmq.errors import OffsetOutOfRange

    if place.kind not in {"exact", "after_start"}:
        return {number: found.start for number, found in client.admin.offsets(name, partitions=partitions, at=place).items()}
    ends = client.admin.offsets(name, partitions=partitions)
    if place.kind == "exact" and partitions is None and len(ends) > 1:
        raise click.UsageError(
            f"{name} has {len(ends)} partitions, each with offsets of its own: say with -p which one begins at {place.value};"
            " a time (@-7d) or 'end' is for all",
            click.get_current_context(),
        )
    places = {number: place.value if place.kind == "exact" else found.start + place.value for number, found in ends.items()}
    for number, wanted in places.items():
        start, end = ends[number].start, ends[number].end
        if wanted > end:
            raise OffsetOutOfRange(
                f"offset {wanted} lies beyond the end of {name}-{number}, which is {end}; nothing was deleted",
                log_start=start,
                log_end=end,
                hint=f"give an offset up to {end}, or 'end' to delete all there is:  zmqmq topic trim {name} --to end",
            )
    return places


def _place(text: str) -> Offset:
    """One place in a topic: an offset, a time, the end."""
    import datetime as dt

    from zmqmq_cli import offsets

    span = offsets.parse(text, dt.datetime.now(dt.UTC))
    if span.stop is not None:
        raise click.UsageError(f"{text!r} is a span; one place is wanted", click.get_current_context())
    return span.start


@topic.command("offsets", cls=Command)
@click.argument("name")
@click.option("--at", metavar="@TIME", help="The first offset appended at that time or later.")
@click.pass_obj
def offsets_(settings: Settings, *, name: str, at: str | None) -> None:
    """Where the partitions of a topic begin and end, or what they had at a time."""
    place = None if at is None else _place(at)
    with settings.client() as client:
        found = client.admin.offsets(name, at=place)
    rows = [{"topic": name, "partition": number, "start": offsets.start, "end": offsets.end} for number, offsets in found.items()]
    settings.output.rows(rows, _OFFSET_COLUMNS if at is None else _AT_COLUMNS)
