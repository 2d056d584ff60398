"""Conditions of role assignments (Azure ABAC, condition version 2.0): parsed once, evaluated for each action.

The supported part of the language:

- `AND`, `OR`, `!`, parentheses, and `ActionMatches{'…'}`;
- comparisons of `@Request[…]` or `@Resource[…]` by `StringEquals`, `StringLike`, `StringStartsWith` with their `Not` and
  `IgnoreCase` forms, `GuidEquals` and `GuidNotEquals`;
- one value, or a set: with `ForAnyOfAnyValues:` one value must match, with `ForAnyOfAllValues:` all must. An attribute
  has one value here, so `ForAll…` is equivalent to `ForAny…`.

A comparison with a missing attribute is neither true nor false (Kleene's three-valued logic). A condition with that result
does not hold. So a missing value never grants anything, also not behind a `!`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from cumulet.common.ascii import fold
from cumulet.common.patterns import like

#: Returns whether the condition holds for an action and the attributes of a request. The keys of the attributes are names
#: in lower case, or `@request[name]` and `@resource[name]` for an attribute of one source.
Condition = Callable[[str, Mapping[str, str]], bool]

_Term = Callable[[str, Mapping[str, str]], bool | None]

_LONGEST = 8 * 1024
_DEEPEST = 50

_TOKEN = re.compile(
    r"\s*(?:(?P<sign>[(){},!])|(?P<text>'(?:[^'\\]|\\.)*')|(?P<attribute>@(?:Request|Resource)\[[^\]]+\])"
    r"|(?P<guid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|(?P<word>[A-Za-z:]+|&&|\|\|))",
    re.IGNORECASE | re.ASCII,
)
_OPERATOR = re.compile(
    r"(?:For(?:Any|All)Of(?P<over>Any|All)Values:)?(?:String(?P<not>Not)?(?P<kind>Equals|Like|StartsWith)"
    r"(?P<caseless>IgnoreCase)?|Guid(?P<other>Not)?(?P<guid>Equals))",
    re.IGNORECASE | re.ASCII,
)
_END = ("end", "")
#: A string in quotes, or a GUID without quotes.
_VALUES = ("text", "guid")


class ConditionError(Exception):
    """A condition is not valid or not supported; the message shows the position."""


class _Comparison(msgspec.Struct, frozen=True):
    source: str
    name: str
    kind: str
    negated: bool
    caseless: bool
    all_values: bool
    values: tuple[str, ...]

    def __call__(self, action: str, attributes: Mapping[str, str]) -> bool | None:
        actual = attributes.get(f"{self.source}[{self.name}]", attributes.get(self.name))
        if actual is None:
            return None
        results = (self._matches(value, actual) is not self.negated for value in self.values)
        return all(results) if self.all_values else any(results)

    def _matches(self, value: str, actual: str) -> bool:
        if self.caseless:
            value, actual = fold(value), fold(actual)
        match self.kind:
            case "equals":
                return value == actual
            case "startswith":
                return actual.startswith(value)
        return like(value, actual)


@functools.lru_cache(maxsize=256)
def parse(text: str) -> Condition:
    """Parse a condition. Raises `ConditionError`."""
    if len(text) > _LONGEST:
        raise ConditionError(f"it is longer than {_LONGEST} characters")
    condition = _Parser(text).whole()
    return lambda action, attributes: condition(action, attributes) is True


def _any(results: Iterable[bool | None]) -> bool | None:
    unknown = False
    for each in results:
        if each:
            return True
        unknown = unknown or each is None
    return None if unknown else False


def _not(result: bool | None) -> bool | None:
    return None if result is None else not result


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def whole(self) -> _Term:
        condition = self._either()
        self._expect("end")
        return condition

    def _either(self) -> _Term:
        parts = [self._both()]
        while self._skip_word("or", "||"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda action, has: _any(part(action, has) for part in parts)

    def _both(self) -> _Term:
        parts = [self._one()]
        while self._skip_word("and", "&&"):
            parts.append(self._one())
        return (
            parts[0] if len(parts) == 1 else lambda action, has: _not(_any(_not(part(action, has)) for part in parts))
        )

    def _one(self) -> _Term:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ConditionError(f"it is nested more than {_DEEPEST} deep")
        try:
            return self._term()
        finally:
            self._depth -= 1

    def _term(self) -> _Term:
        kind, text = self._next()
        if text == "!" or (kind == "word" and fold(text) == "not"):
            negated = self._one()
            return lambda action, has: _not(negated(action, has))
        if text == "(":
            inside = self._either()
            self._expect("sign", ")")
            return inside
        if kind == "word" and fold(text) == "actionmatches":
            (pattern,) = self._values(single=True)
            return lambda action, _: like(fold(pattern), fold(action))
        if kind == "attribute":
            return self._comparison(text)
        raise ConditionError(f"'{text or 'the end'}' is not expected there")

    def _comparison(self, attribute: str) -> _Term:
        _, text = self._next()
        operator = _OPERATOR.fullmatch(text)
        if operator is None:
            raise ConditionError(f"the operator '{text}' is not supported")
        values = self._values(single=":" not in text)
        source, _, name = fold(attribute).partition("[")
        return _Comparison(
            source,
            name.rstrip("]").strip(),
            fold(operator["kind"] or operator["guid"]),
            bool(operator["not"] or operator["other"]),
            bool(operator["caseless"] or operator["guid"]),
            operator["over"] is not None and fold(operator["over"]) == "all",
            values,
        )

    def _values(self, *, single: bool) -> tuple[str, ...]:
        kind, text = self._next()
        if kind in _VALUES:
            return (_unquote(text),)
        if text != "{":
            raise ConditionError(f"a value is expected, not '{text or 'the end'}'")
        values = []
        while True:
            kind, text = self._next()
            if kind not in _VALUES:
                raise ConditionError(f"a value in quotes is expected, not '{text or 'the end'}'")
            values.append(_unquote(text))
            _, text = self._next()
            if text == "}":
                break
            if text != ",":
                raise ConditionError(f"',' or '}}' is expected, not '{text or 'the end'}'")
        if single and len(values) > 1:
            raise ConditionError("several values need an operator with a prefix such as ForAnyOfAnyValues:")
        return tuple(values)

    def _next(self) -> tuple[str, str]:
        token = self._tokens[self._at] if self._at < len(self._tokens) else _END
        self._at += 1
        return token

    def _skip_word(self, *words: str) -> bool:
        if self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if kind == "word" and fold(text) in words:
                self._at += 1
                return True
        return False

    def _expect(self, kind: str, text: str = "") -> None:
        token = self._next()
        if token[0] != kind or (text and token[1] != text):
            raise ConditionError(f"'{token[1] or 'the end'}' is not expected there")


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ConditionError(f"'{text[at : at + 20].strip()}' is not valid there")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return tokens


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith("'") else text
