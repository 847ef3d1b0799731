"""Frames in, values or named errors out; nothing else."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq import errors
from zmqmq.errors import RemoteProtocolError, UnsupportedVersion
from zmqmq.wire import framing, replies, requests


def test_a_request_with_payload_comes_back() -> None:
    request = requests.Produce(9, 1000, 1, [requests.ProduceEntry(b"i" * 16, 4, 1)])
    value, payload = framing.decode_request(framing.encode(request, [b"batch"]))
    assert (value, list(payload)) == (request, [b"batch"])


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_garbage_raises_protocol_errors_only(frames: list[bytes]) -> None:
    with pytest.raises((RemoteProtocolError, UnsupportedVersion)):
        framing.decode_request(frames)
    assert framing.correlation_id(frames) >= 0 or len(frames) > 1


@given(st.binary(max_size=200))
def test_a_header_of_garbage_decodes_or_is_refused(header: bytes) -> None:
    for decode in (framing.decode_request, framing.decode_reply):
        try:
            decode([framing.PROTOCOL, header])
        except RemoteProtocolError:
            continue


@pytest.mark.parametrize(
    "header",
    [
        b"\x91" * 5000,  # nested deeper than the decoder follows
        b"\xdd\xff\xff\xff\xff",  # announces four thousand million elements
        b"\x93\x02\x01\x00\xa2\xff\xfe",  # not UTF-8
        b"",
        b"\xc0",
        b"\x93\x7f\x05\x00",  # a number that no request has
    ],
)
def test_hostile_headers_are_refused(header: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        framing.decode_request([framing.PROTOCOL, header])


def test_the_correlation_id_of_an_unknown_request_is_found() -> None:
    assert framing.correlation_id([framing.PROTOCOL, b"\x93\x7f\x05\x00"]) == 5


def test_a_future_protocol_version_is_named() -> None:
    with pytest.raises(UnsupportedVersion, match="version 2"):
        framing.decode_request([b"zmqmq\x00\x02", b"\x90"])


def test_fields_from_the_future_are_ignored_and_missing_ones_defaulted() -> None:
    ping, _ = framing.decode_request([framing.PROTOCOL, b"\x95\x0c\x01\x02\x07\x08"])
    assert ping == requests.Ping(1, 2)
    fetch, _ = framing.decode_request([framing.PROTOCOL, b"\x93\x04\x01\x02"])
    assert fetch == requests.Fetch(1, 2)


def test_bounds_of_a_message_are_enforced() -> None:
    with pytest.raises(RemoteProtocolError, match="limit"):
        framing.decode_request([framing.PROTOCOL, bytes(framing.HEADER_BYTES_MAX + 1)])
    with pytest.raises(RemoteProtocolError, match="limit"):
        framing.decode_request([framing.PROTOCOL, b"\x93\x0c\x01\x02", *[b""] * (framing.PAYLOAD_FRAMES_MAX + 1)])


def test_every_error_survives_the_wire() -> None:
    for code, cls in errors.BY_CODE.items():
        reply = framing.error_reply(1, cls("what", hint="do this"))
        decoded, _ = framing.decode_reply(framing.encode(reply))
        assert isinstance(decoded, replies.ErrorReply)
        error = framing.raised(decoded.fault)
        assert (type(error), error.code, str(error), error.hint) == (cls, code, "what", "do this")


def test_a_traceback_shows_the_hint() -> None:
    assert "do this" in "".join(traceback.format_exception(errors.DiskFull("what", hint="do this")))


def test_details_of_an_error_survive_the_wire() -> None:
    error = framing.raised(framing.fault(errors.UnknownTopic("no", similar=["orders"])))
    assert isinstance(error, errors.UnknownTopic)
    assert error.similar == ("orders",)
    error = framing.raised(framing.fault(errors.DataLost("gone", log_start=5, log_end=9)))
    assert isinstance(error, errors.DataLost)
    assert (error.log_start, error.log_end) == (5, 9)


def test_an_error_code_from_the_future_is_still_an_error() -> None:
    error = framing.raised(replies.Fault(9999, "odd"))
    assert type(error) is errors.ZmqmqError
    assert "9999" in str(error)


def test_error_codes_are_unique() -> None:
    classes = [cls for cls in errors._subclasses(errors.ZmqmqError) if cls.__module__ == errors.__name__]
    assert len({cls.code for cls in classes}) == len(set(classes))
