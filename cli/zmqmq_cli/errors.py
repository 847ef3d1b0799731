"""From exceptions to three lines on stderr and an exit code.

The lines are always: what happened, where, what to do next. The codes are the table of ``zmqmq help exit-codes``.
"""

from __future__ import annotations

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
    (INTERRUPTED, "Ctrl-C (consume and tail ended by Ctrl-C: 0)"),
)


def exit_code(error: ZmqmqError) -> int:
    """The code for an error of the library."""
    from zmqmq import errors

    match error:
        case errors.UnknownTopic():
            return UNKNOWN_TOPIC
        case errors.InvalidConfig():
            return USAGE
        case errors.BrokerUnavailable() | errors.TimeoutError():
            return UNREACHABLE
        case errors.DeliveryFailed(failures=(first, *_)):
            return exit_code(first.error)
        case _:
            return FAILED


def three_lines(error: ZmqmqError, where: str, brokers: str = "") -> tuple[str, str, str]:
    """``where`` is the place for errors that do not know a better one themselves; ``brokers`` who was asked, if anybody."""
    from zmqmq import errors

    if isinstance(error, errors.DeliveryFailed) and error.failures:
        error = error.failures[0].error
    message = _one_line(str(error)) or type(error).__name__
    if isinstance(error, errors.UnknownTopic) and brokers:
        message = f"{message} on {brokers}"
    return f"Error: {message}", f"  {_place(error) or where}", f"  {_one_line(error.hint) or _next_step(error)}"


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


def _next_step(error: ZmqmqError) -> str:
    """The advice in the error's own docstring: all but its first sentence."""
    text = _one_line(type(error).__doc__ or "")
    _, _, advice = text.partition(". ")
    return advice.replace("``", "") or ("Try again" if error.retriable else "See  zmqmq help exit-codes  and -v for the traceback")


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines()).strip()


def exit_code_rows() -> Sequence[dict[str, object]]:
    return [{"code": code, "meaning": meaning} for code, meaning in EXIT_CODES]
