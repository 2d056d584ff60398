"""Typed objects in expressions, `Object{spec: Object.spec{replicas: 1}}` and `JSONPatch{op: "test"}`, as the maps that they are.

The evaluator has no types but its own, so an expression is rewritten before it is read: the fields become keys, and
the name of a type must say where in the object it is (`cel/mutation`).
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from cumulet.kube.cel.errors import CelError

_LITERAL = re.compile(
    r"""[rRbB]{0,2}(\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|//[^\n]*""", re.DOTALL
)
_TYPE = re.compile(r"(Object(?:\s*\.\s*\w+)*|JSONPatch)\s*\{", re.ASCII)
_FIELD = re.compile(r"\s*(\w+|`[^`]*`)\s*:", re.ASCII)
_WORD = re.compile(r"\w+", re.ASCII)
_ESCAPES = (("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__"))
_PATCH = frozenset(("op", "path", "from", "value"))
_CLOSING = {"{": "}", "[": "]", "(": ")"}


class _Open(NamedTuple):
    """A bracket that is open: its end, the type that it makes, and the field of that which is being written."""

    end: str
    type: str = ""
    field: str = ""


@functools.lru_cache(maxsize=256)
def plain(expression: str) -> str:
    """The expression with maps in place of typed objects. Raises `CelError` where a type is not that of its place."""
    written: list[str] = []
    stack: list[_Open] = []
    position, expects_field = 0, False
    while position < len(expression):
        if expects_field and (field := _FIELD.match(expression, position)):
            name = _name(field[1], stack[-1].type)
            stack[-1] = stack[-1]._replace(field=name)
            written.append(f'"{name}":')
            position, expects_field = field.end(), False
            continue
        if literal := _LITERAL.match(expression, position):
            written.append(literal[0])
            position = literal.end()
            continue
        if made := _TYPE.match(expression, position):
            kind = re.sub(r"\s", "", made[1], flags=re.ASCII)
            _check(kind, stack)
            stack.append(_Open("}", kind))
            written.append("{")
            position, expects_field = made.end(), True
            continue
        if word := _WORD.match(expression, position):
            written.append(word[0])
            position = word.end()
            continue
        char = expression[position]
        if char in _CLOSING:
            stack.append(_Open(_CLOSING[char]))
        elif stack and char == stack[-1].end:
            stack.pop()
            expects_field = False
        elif char == "," and stack and stack[-1].type:
            expects_field = True
        written.append(char)
        position += 1
    return "".join(written)


def _name(text: str, kind: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    if kind == "JSONPatch":
        if text not in _PATCH:
            raise CelError(f"compilation failed: ERROR: undefined field '{text}'")
        return text
    for escape, char in _ESCAPES:
        text = text.replace(escape, char)
    return text.removeprefix("__").removesuffix("__") if re.fullmatch(r"__[a-z]+__", text) else text


def _check(kind: str, stack: list[_Open]) -> None:
    """An object within an object has the type of the field that it is written to; in a patch it may be any."""
    around = next((item for item in reversed(stack) if item.type), None)
    if around is None or kind == "JSONPatch" or around.type == "JSONPatch":
        return
    wanted = f"{around.type}.{around.field}"
    if kind != wanted:
        raise CelError(f"compilation failed: ERROR: unexpected type name {kind!r}, expected {wanted!r}")
