"""From bytes on stdin or in files to single messages. Bounded: a message longer than any topic allows is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from zmqmq.errors import MessageTooLarge, ZmqmqError
from zmqmq.model import BATCH_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zmqmq_cli.input_formats import Given, InputFormat

RECORD_BYTES_MAX: Final = BATCH_BYTES_MAX
READ_BYTES: Final = 256 << 10


class Stream(Protocol):
    """A binary file that can give what is there without waiting for more."""

    def read1(self, size: int, /) -> bytes: ...


def split(stream: Stream, delimiter: bytes) -> Iterator[bytes]:
    """What lies between the delimiters. The last piece counts even without one, unless it is empty."""
    rest = b""
    while chunk := stream.read1(READ_BYTES):
        *pieces, rest = (rest + chunk).split(delimiter)
        yield from pieces
        if len(rest) > RECORD_BYTES_MAX:
            raise MessageTooLarge(
                f"a message on the input is longer than {RECORD_BYTES_MAX} bytes",
                hint="check the delimiter (-D)",
            )
    if rest:
        yield rest


def messages(stream: Stream, form: InputFormat, name: str) -> Iterator[Given]:
    """The messages on a stream. What cannot be read is an error that names the line."""
    for number, record in enumerate(split(stream, form.delimiter), 1):
        try:
            yield form.parse(record)
        except ZmqmqError as error:
            raise type(error)(f"{name}:{number}: {error}", hint=error.hint) from error


def from_files(paths: Sequence[str], form: InputFormat | None) -> Iterator[Given]:
    """One message per file; with a form, the messages within them."""
    from zmqmq_cli.input_formats import Given

    for path in paths:
        with open(path, "rb") as file:
            if form is not None:
                yield from messages(file, form, path)
                continue
            value = file.read(RECORD_BYTES_MAX + 1)
            if len(value) > RECORD_BYTES_MAX:
                raise MessageTooLarge(f"{path} is longer than {RECORD_BYTES_MAX} bytes", hint="with -l each of its lines is a message")
            yield Given(value)
