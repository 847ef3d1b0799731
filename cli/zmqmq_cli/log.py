"""``zmqmq log``: a data directory looked at and copied without its broker. Only ``verify --repair`` writes into it, and only
indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from zmqmq_cli.lazy import Command, LazyGroup
from zmqmq_cli.output import Column, Output, human_bytes_cell
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from zmqmq.store.verify import PartitionCheck, Verification

_DIRECTORY: Final = click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
_PERCENT: Final = 100
_SEGMENT_COLUMNS: Final = (
    Column("topic"),
    Column("partition"),
    Column("base_offset"),
    Column("size_bytes", "SIZE", human_bytes_cell),
    Column("file"),
)
_BATCH_COLUMNS: Final = (
    Column("position"), Column("base_offset"), Column("last_offset"), Column("records"), Column("bytes"), Column("uncompressed"),
    Column("codec"), Column("epoch"), Column("appended_ms"), Column("producer"), Column("producer_epoch", wide=True),
    Column("sequence"), Column("control", wide=True),
)  # fmt: skip
_FINDING_COLUMNS: Final = (Column("severity"), Column("file"), Column("position"), Column("what"))
_STATS_COLUMNS: Final = (
    Column("topic"), Column("partition"), Column("start"), Column("end"), Column("segments"), Column("batches"), Column("records"),
    Column("bytes", show=human_bytes_cell), Column("uncompressed", show=human_bytes_cell), Column("ratio"),
)  # fmt: skip


@click.group("log", cls=LazyGroup)
def log() -> None:
    """Look into a data directory, offline."""


@log.command("ls", cls=Command)
@_DIRECTORY
@click.pass_obj
def ls(settings: Settings, *, directory: str) -> None:
    """List the segments of DIR."""
    from zmqmq.store.disk import RealDisk
    from zmqmq.store.verify import check_is_data_directory, partition_of_path, segment_paths
    from zmqmq_cli import offline

    disk = RealDisk()
    check_is_data_directory(disk, directory)
    names = offline.topic_names(disk, directory)
    rows = []
    for partition, path in segment_paths(disk, directory):
        try:
            file = disk.open(path, write=False)
        except FileNotFoundError:  # a broker removed it meanwhile
            continue
        try:
            size = file.size()
        finally:
            file.close()
        rows.append(
            {
                "topic": offline.name_of(names, partition),
                "partition": partition.partition,
                "base_offset": partition_of_path(path)[1],
                "size_bytes": size,
                "file": path,
            }
        )
    settings.output.rows(rows, _SEGMENT_COLUMNS)


@log.command("dump", cls=Command)
@click.argument("segment", type=click.Path(exists=True, dir_okay=False))
@click.option("-f", "--format", "template", metavar="FMT|json", help=r"How to print a message: '%o %k=%v\n'.")
@click.option("--headers-only", is_flag=True, help="The headers of the batches instead of their messages.")
@click.pass_obj
def dump(settings: Settings, *, segment: str, template: str | None, headers_only: bool) -> None:
    """Print the messages of a SEGMENT file, or the headers of its batches. Every checksum is checked on the way."""
    import os

    from zmqmq.store.disk import RealDisk
    from zmqmq.store.verify import batches_of, partition_of_path
    from zmqmq_cli import formats, offline

    disk, path, output = RealDisk(), os.path.abspath(segment), settings.output
    partition, _ = partition_of_path(path)
    if headers_only:
        output.rows(map(offline.header_row, batches_of(disk, path)), _BATCH_COLUMNS)
        return
    topic = offline.name_of(offline.topic_names(disk, _root_of(path)), partition)
    as_json = template == "json" or output.format in {"json", "jsonl"}
    render = formats.json_line if as_json else formats.compile_output(template) if template else formats.line
    for found in batches_of(disk, path):
        output.data(b"".join(render(message) for message in offline.messages(found, topic, partition.partition)))


def _root_of(segment: str) -> str:
    """A segment is ``<root>/logs/<topic>/<partition>/<base>.log``."""
    return segment.rsplit("/", 4)[0]


@log.command("verify", cls=Command)
@_DIRECTORY
@click.option("--repair", is_flag=True, help="Build all indexes anew first. Segments are never changed.")
@click.option("--no-progress", is_flag=True, help="No progress bar.")
@click.pass_obj
def verify(settings: Settings, *, directory: str, repair: bool, no_progress: bool) -> int:
    """Check every batch of DIR, both checksums, offsets without a gap, indexes, journal. Exit code 1 if something is wrong."""
    from zmqmq.store.disk import RealDisk
    from zmqmq.store.verify import rebuild_indexes
    from zmqmq_cli import errors

    output = settings.output
    if repair:
        output.note(f"{rebuild_indexes(RealDisk(), directory):,} indexes built anew")
    result = _verified(output, directory, no_progress=no_progress)
    if result.findings:
        output.rows([_finding_row(finding) for finding in result.findings], _FINDING_COLUMNS)
    if result.is_in_use:
        output.note(f"a running broker holds {directory}: what it is writing just now was left out")
    output.note(_summary(result))
    if result.is_ok:
        return errors.OK
    output.error(_advice(result))
    return errors.FAILED


def _verified(output: Output, directory: str, *, no_progress: bool) -> Verification:
    from zmqmq.store.disk import RealDisk
    from zmqmq.store.verify import check_is_data_directory, segment_paths, verify_directory

    disk = RealDisk()
    check_is_data_directory(disk, directory)
    total = len({partition for partition, _ in segment_paths(disk, directory)})
    with output.progress("partitions", total, wanted=not no_progress) as progress:
        done: list[PartitionCheck] = []

        def on_progress(check: PartitionCheck) -> None:
            done.append(check)
            progress(len(done))

        return verify_directory(disk, directory, on_progress=on_progress)


def _finding_row(finding: Any) -> dict[str, Any]:
    return {"severity": finding.severity, "file": finding.file, "position": finding.position, "what": finding.what}


def _summary(result: Verification) -> str:
    segments = sum(check.segment_count for check in result.partitions)
    batches = sum(check.batch_count for check in result.partitions)
    records = sum(check.record_count for check in result.partitions)
    waiting = sum(check.journal_end - check.log_end for check in result.partitions)
    checked = f"{len(result.partitions):,} partitions, {segments:,} segments, {batches:,} batches, {records:,} records"
    journal = f", {result.journal_entries:,} journal entries" + (f" with {waiting:,} more records" if waiting > 0 else "")
    return f"{checked}{journal}: {'ok' if result.is_ok else 'not ok'}"


def _advice(result: Verification) -> tuple[str, str, str]:
    """Errors are worse than bad indexes, which repair themselves."""
    bad = [finding for finding in result.findings if finding.severity == "error"]
    if bad:
        what = f"Error: {len(bad):,} {'place is' if len(bad) == 1 else 'places are'} not what was written"
        return (
            what,
            f"  First: {bad[0].file} at byte {bad[0].position}",
            "  Restore the file from a backup or a replica; the rest stays readable",
        )
    wrong = [finding for finding in result.findings if finding.severity == "index"]
    return (
        f"Error: {len(wrong):,} {'index does' if len(wrong) == 1 else 'indexes do'} not match",
        f"  First: {wrong[0].file} at byte {wrong[0].position}",
        f"  Nothing is lost. Build them anew with:  zmqmq log verify {result.root} --repair",
    )


@log.command("backup", cls=Command)
@click.argument("source", metavar="SOURCE", type=click.Path(exists=True, file_okay=False))
@click.argument("target", metavar="TARGET", type=click.Path())
@click.option("--no-progress", is_flag=True, help="No progress bar.")
@click.pass_obj
def backup(settings: Settings, *, source: str, target: str, no_progress: bool) -> None:
    """Copy the data directory SOURCE to TARGET, which is empty or not there yet. Its broker may go on working meanwhile.

    The copy has everything that was acknowledged before, and is verified. It is the same broker as SOURCE: never let both
    run in one cluster.
    """
    import os

    from zmqmq.store.backup import backup_directory
    from zmqmq.store.disk import RealDisk

    output = settings.output
    with output.progress("backup %", _PERCENT, wanted=not no_progress) as progress:

        def on_progress(done: int, total: int) -> None:
            progress(done * _PERCENT // max(1, total))

        report = backup_directory(RealDisk(), os.path.realpath(source), os.path.realpath(target), on_progress=on_progress)
    output.note(_summary(report.verification))
    row = {"source": source, "target": target, "partitions": report.partitions, "bytes": report.bytes, "rounds": report.rounds}
    output.one(row, f"copied {source} to {target}: {report.bytes:,} bytes of {report.partitions:,} partitions, verified and on disk")


@log.command("stats", cls=Command)
@_DIRECTORY
@click.option("--no-progress", is_flag=True, help="No progress bar.")
@click.pass_obj
def stats(settings: Settings, *, directory: str, no_progress: bool) -> None:
    """Records, bytes and compression of each partition in DIR, as of its last checkpoint."""
    from zmqmq.store.disk import RealDisk
    from zmqmq_cli import offline

    result = _verified(settings.output, directory, no_progress=no_progress)
    names = offline.topic_names(RealDisk(), directory)
    rows = [_stats_row(offline.name_of(names, check.partition), check) for check in result.partitions]
    settings.output.rows(sorted(rows, key=lambda row: (row["topic"], row["partition"])), _STATS_COLUMNS)
    wrong = sum(finding.severity == "error" for finding in result.findings)
    if wrong:
        settings.output.note(f"{wrong:,} errors were found on the way; see  zmqmq log verify {directory}")


def _stats_row(topic: str, check: PartitionCheck) -> dict[str, Any]:
    return {
        "topic": topic,
        "partition": check.partition.partition,
        "start": check.log_start,
        "end": max(check.log_end, check.journal_end),
        "segments": check.segment_count,
        "batches": check.batch_count,
        "records": check.record_count,
        "bytes": check.bytes,
        "uncompressed": check.uncompressed_bytes,
        "ratio": round(check.uncompressed_bytes / check.bytes, 2) if check.bytes else None,
    }
