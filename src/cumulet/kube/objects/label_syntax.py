"""The syntax of label selectors, as apimachinery's `labels.Parse` reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cumulet.kube.apimachinery.name_formats import label_value, qualified_name
from cumulet.kube.schema.validation.field_errors import quoted

Test = Callable[[Mapping[str, str]], bool]

_TOKEN = re.compile(r"\s*(!=|==|[=!(),<>]|[^\s=!(),<>]+)", re.ASCII)
_SYMBOLS = frozenset(("!=", "==", "=", "!", "(", ")", ",", "<", ">"))
_OPERATORS = ("in", "notin", "=", "==", "!=", "<", ">")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


class LabelSelectorError(Exception):
    """A selector is invalid; the message has upstream's words."""


class _Requirement(NamedTuple):
    key: str
    operator: str
    values: frozenset[str]

    def check(self) -> None:
        """Check the values. Raises `LabelSelectorError`."""
        wrong: list[str] = []
        if self.operator in ("in", "notin") and not self.values:
            wrong.append("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
        for index, value in enumerate(sorted(self.values)):
            if self.operator in ("<", ">") and not _WHOLE.fullmatch(value):
                why = "for 'Gt', 'Lt' operators, the value must be an integer"
                wrong.append(f"values[{index}]: Invalid value: {quoted(value)}: {why}")
        for index, value in enumerate(sorted(self.values)):
            if messages := label_value(value):
                wrong.append(f"values[{index}][{self.key}]: Invalid value: {quoted(value)}: {'; '.join(messages)}")
        if wrong:
            raise LabelSelectorError(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")

    def test(self) -> Test:
        """Return the requirement as a predicate on labels."""
        key, values = self.key, self.values
        match self.operator:
            case "exists":
                return lambda labels: key in labels
            case "!":
                return lambda labels: key not in labels
            case "in":
                return lambda labels: labels.get(key) in values
            case "notin":
                return lambda labels: labels.get(key) not in values
            case "=" | "==":
                (value,) = values
                return lambda labels: labels.get(key) == value
            case "!=":
                (value,) = values
                return lambda labels: labels.get(key) != value
        (bound,) = map(int, values)
        above = self.operator == ">"
        return lambda labels: _is_beyond(labels.get(key, ""), bound, above=above)


def _is_beyond(value: str, bound: int, *, above: bool) -> bool:
    if not _WHOLE.fullmatch(value):
        return False
    return int(value) > bound if above else int(value) < bound


def parse(text: str) -> list[Test]:
    """Return a predicate for each requirement of a selector. Raises `LabelSelectorError`."""
    return [requirement.test() for requirement in _Parser(text).requirements()]


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def requirements(self) -> list[_Requirement]:
        parsed: list[_Requirement] = []
        while word := self._peek():
            if word in _SYMBOLS and word != "!":
                raise LabelSelectorError(f"found '{word}', expected: !, identifier, or 'end of string'")
            try:
                parsed.append(self._requirement())
            except LabelSelectorError as error:
                raise LabelSelectorError(f"unable to parse requirement: {error}") from None
            after = self._next()
            if not after:
                break
            if after != ",":
                raise LabelSelectorError(f"found '{after}', expected: ',' or 'end of string'")
            if not self._is_word(self._peek()) and self._peek() != "!":
                raise LabelSelectorError(f"found '{self._peek()}', expected: identifier after ','")
        return parsed

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    @staticmethod
    def _is_word(token: str) -> bool:
        return bool(token) and token not in _SYMBOLS

    def _requirement(self) -> _Requirement:
        key = self._next()
        absent = key == "!"
        if absent:
            key = self._next()
        if not self._is_word(key):
            raise LabelSelectorError(f"found '{key}', expected: identifier")
        if messages := qualified_name(key):
            raise LabelSelectorError(f"<nil>: Invalid value: {quoted(key)}: {'; '.join(messages)}")
        if absent or self._peek() in ("", ","):
            return _Requirement(key, "!" if absent else "exists", frozenset())
        operator = self._next()
        if operator not in _OPERATORS:
            raise LabelSelectorError(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
        values = self._values() if operator in ("in", "notin") else {self._value()}
        requirement = _Requirement(key, operator, frozenset(values))
        requirement.check()
        return requirement

    def _value(self) -> str:
        if self._peek() in ("", ","):
            return ""
        value = self._next()
        if not self._is_word(value):
            raise LabelSelectorError(f"found '{value}', expected: identifier")
        return value

    def _values(self) -> set[str]:
        opening = self._next()
        if opening != "(":
            raise LabelSelectorError(f"found '{opening}' expected: '('")
        values: set[str] = set()
        if not self._is_word(self._peek()) and self._peek() not in (",", ")"):
            raise LabelSelectorError(f"found '{self._peek()}', expected: ',', ')' or identifier")
        while True:
            word = ""
            if self._is_word(self._peek()):
                word = self._next()
            values.add(word)
            after = self._next()
            if after == ")":
                return values
            if after != ",":
                raise LabelSelectorError(f"found '{after}', expected: ',' or ')'")
