"""Every form of an offset."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq import Offset
from zmqmq.errors import InvalidConfig
from zmqmq_cli.offsets import Span, parse, parse_all

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
DAY = dt.datetime(2026, 11, 20).astimezone()


TEN = Offset.at(dt.datetime(2026, 11, 20, 10, tzinfo=dt.UTC))
ELEVEN = Offset.at(dt.datetime(2026, 11, 20, 11, tzinfo=dt.UTC))


def ago(hours: int) -> Offset:
    return Offset.at(NOW - dt.timedelta(hours=hours))


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("start", Span(Offset.START)),
        ("beginning", Span(Offset.START)),
        ("earliest", Span(Offset.START)),
        ("end", Span(Offset.END)),
        ("latest", Span(Offset.END)),
        ("42", Span(Offset.exact(42))),
        ("-10", Span(Offset.last(10))),
        ("+10", Span(Offset.after_start(10))),
        ("10:20", Span(Offset.exact(10), Offset.exact(20))),
        (":20", Span(Offset.START, Offset.exact(20))),
        ("10:", Span(Offset.exact(10))),
        (":end", Span(Offset.START, Offset.END)),
        ("5:end", Span(Offset.exact(5), Offset.END)),
        ("-10:-5", Span(Offset.last(10), Offset.last(5))),
        ("@-1h", Span(ago(1))),
        ("@-48h:-24h", Span(ago(48), ago(24))),
        ("@-2d:end", Span(ago(48), Offset.END)),
        ("@1767225600", Span(Offset("time", 1_767_225_600_000))),
        ("@1767225600123", Span(Offset("time", 1_767_225_600_123))),
        ("@1767225600:1767225700", Span(Offset("time", 1_767_225_600_000), Offset("time", 1_767_225_700_000))),
        ("@2026-11-20", Span(Offset.at(DAY))),
        ("@2026-11-20T10:00:00Z", Span(TEN)),
        ("@2026-11-20T10:00:00Z:2026-11-20T11:00:00+00:00", Span(TEN, ELEVEN)),
        ("@2026-11-20T10:00:00Z:@-1h", Span(TEN, ago(1))),
        ("s@1767225600123", Span(Offset("time", 1_767_225_600_123))),
        ("e@1767225600123", Span(Offset.START, Offset("time", 1_767_225_600_123))),
    ],
)  # fmt: skip
def test_each_form_means_what_the_contract_says(text: str, span: Span) -> None:
    assert parse(text, NOW) == span


@pytest.mark.parametrize(
    "text",
    ["", ":", "-", "+", "x", "1.5", "--1", "1:x", "@", "@x", "@1h", "@-1", "@-1x", "s@", "e@x", "stored", "²", "9" * 30, "@-999999999999w"],
)
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse(text, NOW)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["20:10", "@-24h:-48h", "-5:-10"])
def test_a_span_that_stops_before_it_starts_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="before it starts"):
        parse(text, NOW)


def test_start_and_end_given_apart_complete_each_other() -> None:
    assert parse_all(["e@1767225700000", "s@1767225600000"], NOW) == parse("@1767225600:1767225700", NOW)
    assert parse_all([], NOW) is None
    assert parse_all(["start"], NOW) == Span(Offset.START)


@pytest.mark.parametrize("texts", [["start", "end"], ["s@1767225600", "s@1767225600"], ["s@1767225600", "e@1767225700", "1"]])
def test_offsets_that_do_not_go_together_are_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidConfig):
        parse_all(texts, NOW)


@given(st.text(alphabet="0123456789:@-+seTZhdnw. ", max_size=25))
def test_any_text_gives_a_span_or_a_named_error(text: str) -> None:
    try:
        found = parse(text, NOW)
    except InvalidConfig:
        return
    assert isinstance(found, Span)
