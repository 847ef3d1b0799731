"""From exceptions to three lines on stderr and an exit code.

The lines are always: what happened, where, what to do next. The codes are the table of ``zmqmq help exit-codes``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.errors import ZmqmqError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
UNKNOWN_TOPIC: Final = 4
UNHEALTHY: Final = 10
INTERRUPTED: Final = 130

EXIT_CODES: Final = (
    (OK, "ok; also when the reader of the output went away (SIGPIPE)"),
    (FAILED, "failed: some message not delivered, not found, refused"),
    (USAGE, "usage: an option, argument or setting is wrong"),
    (UNREACHABLE, "could not connect, or timed out"),
    (UNKNOWN_TOPIC, "topic or group does not exist"),
    (UNHEALTHY, "cluster unhealthy"),
    (INTERRUPTED, "Ctrl-C (consume, tail and events ended by Ctrl-C: 0)"),
)


def exit_code(error: ZmqmqError) -> int:
    """The code for an error of the library."""
    from zmqmq import errors

    match error:
        case errors.UnknownTopic():
            return UNKNOWN_TOPIC
        case errors.InvalidConfig() | errors.InvalidHistory():
            return USAGE
        case errors.BrokerUnavailable() | errors.TimeoutError():
            return UNREACHABLE
        case errors.DeliveryFailed(failures=(first, *_)):
            return exit_code(first.error)
        case _:
            return FAILED


def three_lines(error: ZmqmqError, where: str, brokers: str = "", command: str = "zmqmq") -> tuple[str, str, str]:
    """``where`` is the place for errors that do not know a better one themselves; ``brokers`` who was asked, if anybody;
    ``command`` what was run."""
    from zmqmq import errors

    if isinstance(error, errors.DeliveryFailed) and error.failures:
        error = error.failures[0].error
    message = _one_line(str(error)) or type(error).__name__
    if isinstance(error, errors.UnknownTopic) and brokers:
        message = f"{message} on {brokers}"
    return f"Error: {message}", f"  {_place(error) or where}", f"  {_hint(error) or _next_step(error, command)}"


def usage_lines(error: click.ClickException) -> tuple[str, str, str]:
    """For what click itself found wrong with the command line."""
    message = _one_line(error.format_message())
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "zmqmq"
    return f"Error: {message}", f"  Where: {path}", f"  Next: {path} --help"


def unexpected_lines(error: BaseException) -> tuple[str, str, str]:
    """For a bug or a fault of the system: what, where in the code, and how to see more."""
    place, trace = "in zmqmq", error.__traceback__
    while trace is not None:
        place = f"in {trace.tb_frame.f_code.co_name}, {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return (
        f"Error: {type(error).__name__}: {_one_line(str(error))}",
        f"  {place}",
        "  Run it again with -v for the traceback:  zmqmq -v …",
    )


def system_lines(error: OSError, where: str) -> tuple[str, str, str]:
    """For a file or socket that the system refused."""
    file = f" {error.filename!r}" if error.filename else ""
    return f"Error: {error.strerror or error}{file}", f"  {where}", "  Check that the path is right and that you may use it"


def _place(error: ZmqmqError) -> str:
    from zmqmq import errors

    match error:
        case errors.UnknownTopic(similar=(_, *_) as names):
            return f"Similar: {', '.join(names)}"
        case errors.CorruptLog(file=str(file), position=position) if file:
            return f"In {file}" + (f" at byte {position}" if position >= 0 else "")
        case errors.OffsetOutOfRange(log_start=start, log_end=end) if start >= 0:
            return f"The log holds offsets {start} up to, not including, {end}"
        case _:
            return ""


_NEXT_STEPS: Final = {
    "TimeoutError": "Look at the broker with  zmqmq ping  or wait longer with --timeout 30s",
    "BrokerUnavailable": "Start a broker with  zmqmq serve  or name its address with -b tcp://HOST:PORT",
    "NotEnoughReplicas": "Bring brokers back, or lower min_insync_replicas with  zmqmq topic alter TOPIC --set min_insync_replicas=1",
    "DiskFull": "Free space on the broker's disk, or shorten retention with  zmqmq topic alter TOPIC --set retention_ms=1d",
    "OutcomeUnknown": "It may have been carried out: look before you run the command again",
    "LogOffline": "Look at the broker's log and disk, then restart it",
    "UnknownTopic": "List what there is with  zmqmq topic list",
    "TopicExists": "Choose another name, or add --if-not-exists",
    "Fenced": "Another owner took over: stop this one, or stop the other",
    "AuthError": "Check your key and what it is allowed to do",
    "InvalidHistory": "Correct what recorded it; the format is in docs/history.md",
    "InvalidConfig": "Correct it; all options and their forms:  {command} --help",
    "UnsupportedVersion": "Upgrade the older side; see both with  zmqmq version",
    "BufferFull": "Send slower with --rate, or look at the broker with  zmqmq ping",
    "CorruptLog": "Restore it from a backup or a replica; see what else is damaged with  zmqmq log verify DIR",
    "InvalidRecord": "Check what is on disk with  zmqmq log verify DIR  once the broker is stopped",
    "MessageTooLarge": "Make it smaller, or raise the limit with  zmqmq topic alter TOPIC --set message_bytes_max=4000KiB",
    "ProtocolError": "Check that the address is a zmqmq broker's, and both versions with  zmqmq version",
    "DataDirLocked": "Stop the process that has it open, or use another directory",
    "OffsetOutOfRange": "Read from the start with -o start, or from the end with -o end",
    "DataLost": "Read on from what is left with -o start, and lengthen retention_ms or retention_bytes with  zmqmq topic alter",
    "AddressInUse": "Stop the other program, or listen on another port (0 takes any free one)",
    "RetriableError": "Try again",
    "ZmqmqError": "Run it again with -v to see more; what the exit code means:  zmqmq help exit-codes",
}
"""By class; the nearest base counts."""
_FROM_PYTHON: Final = (
    (r"create with exist_ok=True", "add --if-not-exists"),
    (r"seek\((\d+), partition=(\d+)\)", r"-p \2 -o \1"),
    (r"^read on from log_end$", "read from the end with -o end, or from the start with -o start"),
    (r"^read on from log_start\b", "read from what is left with -o start"),
    (r"or raise buffer_bytes or max_block", "with --rate"),
    (r"make a new one( with client\.\w+\(\))?", "run the command again"),
)
"""Hints of the library that speak to programs, and what they are here."""


def _hint(error: ZmqmqError) -> str:
    text = _one_line(error.hint)
    for pattern, words in _FROM_PYTHON:
        text = re.sub(pattern, words, text)
    return text


def _next_step(error: ZmqmqError, command: str) -> str:
    step = next(_NEXT_STEPS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _NEXT_STEPS)
    return step.format(command=command)


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines()).strip()


def exit_code_rows() -> Sequence[dict[str, object]]:
    return [{"code": code, "meaning": meaning} for code, meaning in EXIT_CODES]
