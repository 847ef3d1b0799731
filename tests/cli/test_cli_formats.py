"""Message format strings, both ways."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from zmqmq.errors import DeserializationError, InvalidConfig
from zmqmq_cli import formats, input_formats
from zmqmq_cli.input_formats import Given

T0 = 1_795_348_801_204


class Row(Struct):
    key: bytes | None = b"ann"
    value: bytes | None = b"10"
    topic: str = "orders"
    partition: int = 1
    offset: int = 7
    timestamp_ms: int = T0
    leader_epoch: int = 3
    headers: dict[str, bytes] = {}


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        (r"%p %o %k=%v\n", b"1 7 ann=10\n"),
        ("%t/%s", b"orders/10"),
        ("%K %S %H %e %T", b"3 2 2 3 1795348801204"),
        ("%h", b"a=1,b=2"),
        ("%d", b"2026-11-22T12:00:01.204Z"),
        ("100%%", b"100%"),
        ("%%{x}", b"%{x}"),
        (r"\x41\t\0\\", b"A\t\0\\"),
        (r"\xff", b"\xff"),
        ("é%k", "éann".encode()),
        ("%v{hex} %k{base64}", b"3130 YW5u"),
        ("", b""),
    ],
)
def test_fields_and_escapes_print_what_they_name(template: str, printed: bytes) -> None:
    assert formats.compile_output(template)(Row(headers={"a": b"1", "b": b"2"})) == printed


def test_absent_keys_and_values_print_nothing_and_have_length_minus_one() -> None:
    assert formats.compile_output("[%k|%v|%K|%S]")(Row(key=None, value=None)) == b"[||-1|-1]"


def test_a_time_pattern_knows_milliseconds() -> None:
    assert re.fullmatch(rb"\d\d:00:01\.204", formats.compile_output("%d{%H:%M:%S.%L}")(Row()))


@pytest.mark.parametrize("template", ["%z", "%", "\\", r"\q", "%v{rot13}"])
def test_a_wrong_template_is_refused_with_what_is_known(template: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        formats.compile_output(template)
    assert caught.value.hint


def test_bytes_that_do_not_decode_are_an_error_with_advice() -> None:
    with pytest.raises(DeserializationError) as caught:
        formats.compile_output("%v", decode="json")(Row(value=b"{"))
    assert "hex" in caught.value.hint


def test_the_line_for_people_is_one_line_whatever_the_value_holds() -> None:
    line = formats.line(Row(value=b"a\nb\x1b[31m\xff")).decode()
    assert line.startswith("orders-1@7  ")
    assert line.endswith("  ann  a\\nb\\x1b[31m\\xff\n")


def test_the_line_for_people_truncates_and_shows_headers() -> None:
    line = formats.line(Row(key=None, value=b"x" * 30, headers={"a": b"1"}), truncate=5, headers=True).decode()
    assert line.endswith("  -  xxxxx…  a=1\n")


def test_a_json_line_has_the_members_of_the_contract() -> None:
    assert formats.json_line(Row()) == (
        b'{"topic":"orders","partition":1,"offset":7,"timestamp":"2026-11-22T12:00:01.204Z","key":"ann","value":"10","headers":{}}\n'
    )


def test_a_json_line_shows_decoded_json_as_json() -> None:
    assert json.loads(formats.json_line(Row(value=b'{"id": 1}'), decode="json"))["value"] == {"id": 1}


MAYBE = st.none() | st.binary(max_size=20)


@given(
    key=MAYBE,
    value=MAYBE,
    headers=st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=3),
    decode=st.sampled_from(["", "hex", "base64"]),
)
def test_what_consume_prints_in_json_produce_reads_back(
    key: bytes | None, value: bytes | None, headers: dict[str, bytes], decode: str
) -> None:
    line = formats.json_line(Row(key=key, value=value, headers=headers), decode=decode)
    assert input_formats.json_input().parse(line) == Given(value, key, headers or None, 1, T0)


@pytest.mark.parametrize(
    "record", [b"", b"1", b"{", b'{"value": "=", "value_encoding": "base64"}', b'{"partition": "x"}', b'{"headers": 5}']
)
def test_input_that_is_no_message_in_json_is_refused(record: bytes) -> None:
    with pytest.raises(InvalidConfig):
        input_formats.json_input().parse(record)


def test_plain_input_splits_at_the_first_separator_only() -> None:
    parse = input_formats.plain_input(b":", b"\n").parse
    assert parse(b"ann:10:20") == Given(b"10:20", b"ann")
    assert parse(b"no key") == Given(b"no key")
    assert input_formats.plain_input(b"", b"\n").parse(b"a:b") == Given(b"a:b")


def test_an_input_format_names_fields_and_the_delimiter() -> None:
    found = input_formats.compile_input(r"%p %T %h %k\t%v--\n", b"?")
    assert found.delimiter == b"--\n"
    assert found.parse(b"2 17 a=1,b=2 ann\tsome\ttext") == Given(b"some\ttext", b"ann", {"a": b"1", "b": b"2"}, 2, 17)


def test_an_input_format_without_an_ending_uses_the_delimiter() -> None:
    assert input_formats.compile_input("%k=%v", b"\0").delimiter == b"\0"


@pytest.mark.parametrize("template", ["%k", "%o %v", "%v %"])
def test_an_input_format_needs_a_value_and_readable_fields(template: str) -> None:
    with pytest.raises(InvalidConfig):
        input_formats.compile_input(template, b"\n")


def test_a_line_that_does_not_fit_the_input_format_is_shown() -> None:
    with pytest.raises(InvalidConfig, match="no separator"):
        input_formats.compile_input("%k=%v", b"\n").parse(b"no separator")


@pytest.mark.parametrize(("text", "bytes_"), [(r"\n", b"\n"), (":", b":"), (r"\x00", b"\0"), ("%", b"%"), (r"\t|", b"\t|")])
def test_separators_are_read_as_people_type_them(text: str, bytes_: bytes) -> None:
    assert formats.literal(text) == bytes_
