"""``zmqmq help``: what belongs to no single command."""

from __future__ import annotations

from typing import Final

import click

from zmqmq_cli.errors import exit_code_rows
from zmqmq_cli.lazy import Command, LazyGroup
from zmqmq_cli.output import Column
from zmqmq_cli.settings import Settings

_FORMATS: Final = r"""A format is text with fields in it:  zmqmq consume orders -f '%p %o %k=%v\n'

  %t  topic                      %p  partition
  %o  offset                     %e  leader epoch
  %k  key                        %v  value (also %s)
  %K  length of the key          %S  length of the value (-1: there is none)
  %h  headers: a=1,b=2           %H  how many headers
  %d  time, RFC 3339 in UTC      %T  time in milliseconds since 1970
  %%  a percent sign             \n \t \r \0 \x1f \\  characters

  %d{%H:%M:%S.%L}     the time as strftime writes it, local; %L: milliseconds
  %k{hex} %v{base64}  bytes as text

Keys and values are printed as the bytes they are; one that is absent prints nothing.
Nothing is added: end the format with \n to have one message a line.

consume -f json (or -J) prints an object a line. produce -f reads with %k %v %p %T %h, or json:
  zmqmq consume orders -e -J | zmqmq produce copy -f json
produce -o prints each receipt:  zmqmq produce orders -o '%t-%p@%o\n'"""

_OFFSETS: Final = """Where to start, and where to stop (not included):  zmqmq consume orders -o 100:200

  start  end                 the first record; behind the last one
  42                         offset 42 of every partition (choose one with -p)
  -10                        the last 10 of each partition
  +10                        10 after the start of each partition
  100:200   :200   100:      from and to; from the start; and all that follows
  :end                       what there is now, then stop (as -e does)
  @-1h                       appended within the last hour
  @-48h:-24h                 between two times
  @2026-01-31                a day, or a time: @2026-01-31T12:00:00Z
  @1767225600                seconds since 1970; 13 digits are milliseconds
  s@TIME  e@TIME             start and end apart, each with its own -o

A time without a zone is local. Spans: 500ms, 30s, 5m, 2h, 7d, 1w.
consume begins at the start, tail at the end, unless -o says otherwise."""


@click.group("help", cls=LazyGroup)
def help_() -> None:
    """Topics that belong to no single command."""


@help_.command("exit-codes", cls=Command)
@click.pass_obj
def exit_codes(settings: Settings) -> None:
    """What each exit code means."""
    settings.output.rows(exit_code_rows(), (Column("code"), Column("meaning")))


@help_.command("formats", cls=Command)
@click.pass_obj
def formats(settings: Settings) -> None:
    """The fields of message formats (consume -f, produce -f and -o)."""
    settings.output.text(_FORMATS)


@help_.command("offsets", cls=Command)
@click.pass_obj
def offsets(settings: Settings) -> None:
    """The forms of an offset (consume -o)."""
    settings.output.text(_OFFSETS)
