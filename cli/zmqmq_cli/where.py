"""``consume --where``: a condition on a message, in a small part of Python's expressions.

Names: ``key``, ``value``, ``topic``, ``partition``, ``offset``, ``timestamp`` (milliseconds), ``headers``. Operators:
``== != < <= > >=``, ``in``, ``not in``, ``and``, ``or``, ``not``, parentheses; constants; ``value.amount`` or
``value["amount"]`` for a field of a JSON value, and ``headers["src"]``. Nothing else: no calls, so a condition can do
nothing but compare. What is missing is None, and a comparison that makes no sense (None < 5) is false.
"""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from zmqmq.errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zmqmq import Message

    Get = Callable[[Message[bytes]], Any]

DEPTH_MAX: Final = 20
_decode_json = msgspec.json.Decoder().decode


def _contained(item: Any, container: Any) -> bool:
    return item in container


def _not_contained(item: Any, container: Any) -> bool:
    return item not in container


_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: _contained,
    ast.NotIn: _not_contained,
}
_NAMES: Final[Mapping[str, Get]] = {
    "key": lambda message: _text(message.raw_key),
    "value": lambda message: _text(message.raw_value),
    "topic": lambda message: message.topic,
    "partition": lambda message: message.partition,
    "offset": lambda message: message.offset,
    "timestamp": lambda message: message.timestamp_ms,
    "headers": lambda message: {name: _text(data) for name, data in (message.headers or {}).items()},
}


def compile_where(text: str) -> Callable[[Message[bytes]], bool]:
    """The condition as a function. Raises InvalidConfig that shows what is not understood."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(text, f"it does not parse: {error}") from error
    condition = _build(tree.body, text, 0)
    return lambda message: bool(condition(message))


def _build(node: ast.expr, text: str, depth: int) -> Get:
    if depth > DEPTH_MAX:
        raise _refused(text, f"it is nested deeper than {DEPTH_MAX}")
    inner = depth + 1
    match node:
        case ast.Constant():
            constant = node.value
            return lambda message: constant  # noqa: ARG005 - a constant of any message
        case ast.Name() if node.id in _NAMES:
            return _NAMES[node.id]
        case ast.BoolOp():
            parts = [_build(each, text, inner) for each in node.values]
            together = all if isinstance(node.op, ast.And) else any
            return lambda message: together(part(message) for part in parts)
        case ast.UnaryOp(op=ast.Not()):
            negated = _build(node.operand, text, inner)
            return lambda message: not negated(message)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return lambda message: -number  # noqa: ARG005 - a constant of any message
        case ast.Compare():
            return _comparison(node, text, inner)
        case ast.Attribute():
            return _field(_build(node.value, text, inner), node.attr)
        case ast.Subscript(slice=ast.Constant(value=name)):
            return _field(_build(node.value, text, inner), name)
        case ast.List() | ast.Tuple():
            items = [_build(each, text, inner) for each in node.elts]
            return lambda message: [item(message) for item in items]
    raise _refused(text, f"{ast.unparse(node)!r} is not understood")


def _comparison(node: ast.Compare, text: str, depth: int) -> Get:
    operands = [_build(each, text, depth) for each in (node.left, *node.comparators)]
    if any(type(each) not in _COMPARE for each in node.ops):
        raise _refused(text, "'is' is not understood, use ==")
    steps = list(zip([_COMPARE[type(each)] for each in node.ops], operands, operands[1:], strict=False))

    def compare(message: Message[bytes]) -> bool:
        try:
            return all(step(left(message), right(message)) for step, left, right in steps)
        except TypeError:  # None < 5
            return False

    return compare


def _field(container: Get, name: Any) -> Get:
    """A member of a map, or of the JSON value that a text holds; None when there is none."""

    def get(message: Message[bytes]) -> Any:
        found = container(message)
        if isinstance(found, str):
            try:
                found = _decode_json(found)
            except (msgspec.DecodeError, ValueError, RecursionError):
                return None
        try:
            return found[name]
        except (KeyError, IndexError, TypeError):
            return None

    return get


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace")


def _refused(text: str, why: str) -> InvalidConfig:
    return InvalidConfig(
        f"--where {text!r}: {why}",
        hint="""write it like: --where 'key == "ann" and value.amount > 10'; names: """ + ", ".join(_NAMES),
    )
