"""``--where``: small conditions, and nothing that could do anything but compare."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq.errors import InvalidConfig
from zmqmq_cli.where import compile_where


def message(key: bytes | None = b"ann", value: bytes | None = b'{"amount": 12, "tags": ["a", "b"], "to": {"city": "Bern"}}') -> Any:
    return SimpleNamespace(
        raw_key=key, raw_value=value, topic="orders", partition=2, offset=41, timestamp_ms=1_700_000_000_000, headers={"src": b"web"}
    )


@pytest.mark.parametrize(
    "condition",
    [
        'key == "ann"',
        'key != "bob" and value.amount > 10',
        'value["amount"] >= 12 or False',
        "not value.missing",
        'value.to.city == "Bern"',
        'value.tags[1] == "b"',
        '"a" in value.tags',
        'key not in ["bob", "cid"]',
        "10 <= value.amount < 13",
        'headers["src"] == "web" and headers.other == None',
        'partition == 2 and offset == 41 and topic == "orders"',
        "timestamp > 1600000000000",
        "value.amount > -1",
    ],
)
def test_a_condition_that_holds(condition: str) -> None:
    assert compile_where(condition)(message())


@pytest.mark.parametrize("condition", ["value.missing < 5", 'value.amount == "12"', "value.key.deeper == 1", '"x" in value.missing'])
def test_what_makes_no_sense_is_false(condition: str) -> None:
    assert not compile_where(condition)(message())
    assert not compile_where(condition)(message(key=None, value=None))
    assert not compile_where(condition)(message(value=b"\xff not json"))


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "key ==",
        "open('x')",
        "key.__class__()",
        "[x for x in value]",
        "lambda: 1",
        "key is None",
        "colour == 1",
        "value[offset] == 1",
        "(" * 90,
    ],
)
def test_anything_else_is_refused_with_an_example(condition: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        compile_where(condition)
    assert "value.amount > 10" in caught.value.hint


@given(st.text(alphabet="kevalu.()[]'\"<>=! andortin0123_", max_size=40))
def test_no_text_raises_anything_but_invalid_config(condition: str) -> None:
    try:
        holds = compile_where(condition)
    except InvalidConfig:
        return
    assert holds(message()) in {True, False}
