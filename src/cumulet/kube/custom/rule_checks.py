"""Checks of validation rules when a definition is written: whether they compile, and their maximum cost.

The limit for a rule includes the number of values that it applies to. The limit for a definition is ten times that
(`apiextensions/validation/validation.go`, `cel_validation.go`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.cel import CompileError
from cumulet.kube.cel.types import BOOL, STRING, Type
from cumulet.kube.custom.expression_types import REQUEST, declared, escaped
from cumulet.kube.custom.validation_rules import RULES, Environments, has_rules
from cumulet.kube.schema.validation.field_errors import forbidden, invalid, required, unsupported

Schema = Object

_RULE, _DEFINITION, _MOST = 10_000_000, 100_000_000, 2**64 - 1
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_BREAK = re.compile(r"[\n\r]")
_STEP = re.compile(r"\.([^.\[\]]+)|\['((?:[^'\\]|\\.)*)'\]")


def forms(schema: Schema, field: str) -> Iterator[Cause]:
    """Yield the errors in the rules of this schema itself, before their expressions are compiled."""
    rules = schema.get(RULES) or []
    for index, rule in enumerate(rules):
        where = f"{field}.{RULES}[{index}]"
        text, message = rule.get("rule") or "", rule.get("message") or ""
        if not text.strip():
            yield required(f"{where}.rule", "rule is not specified")
        elif message and not message.strip():
            yield invalid(f"{where}.message", message, "must be non-empty if specified")
        elif _BREAK.search(message.strip()):
            yield invalid(f"{where}.message", message, "must not contain line breaks")
        elif _BREAK.search(text.strip()) and not message.strip():
            yield required(f"{where}.message", "message must be specified if rule contains line breaks")
        if (expression := rule.get("messageExpression")) and not expression.strip():
            yield required(f"{where}.messageExpression", "must be non-empty if specified")
        if rule.get("reason") not in (None, *_REASONS):
            yield unsupported(f"{where}.reason", rule["reason"], _REASONS)
        if path := rule.get("fieldPath"):
            if not path.strip():
                yield invalid(f"{where}.fieldPath", path, "must be non-empty if specified")
            if _BREAK.search(path):
                yield invalid(f"{where}.fieldPath", path, "must not contain line breaks")
            if not _is_path(path, schema):
                yield invalid(f"{where}.fieldPath", path, "must be a valid path")


def _is_path(path: str, schema: object) -> bool:
    """Whether a path names a field of a schema, through objects and maps."""
    position = 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None or not isinstance(schema, dict):
            return False
        position = step.end()
        name = step[1] if step[1] is not None else re.sub(r"\\(.)", r"\1", step[2])
        if properties := schema.get("properties"):
            if name not in properties:
                return False
            schema = properties[name]
        elif isinstance(schema.get("additionalProperties"), dict):
            schema = schema["additionalProperties"]
        else:
            return False
    return True


class _Place(NamedTuple):
    """A schema within a definition: its path and type, its maximum count, and the reason why it cannot use `oldSelf`."""

    schema: Schema
    field: str
    kind: Type | None
    #: `None` where only the size of a request limits it.
    times: int | None
    uncorrelated: str


def check(schema: Schema, field: str) -> Iterator[Cause]:
    """Yield the errors in the expressions of all rules below a schema. `forms` has checked the rest of the rules."""
    if not has_rules(schema):
        return
    costs: list[tuple[int, str]] = []
    root = _Place(schema, field, declared(schema, is_resource=True), 1, "")
    for place in _places(root):
        if place.schema.get(RULES):
            yield from _rules(place, costs)
    total = min(sum(cost for cost, _ in costs), _MOST)
    if total > _DEFINITION:
        most = sorted((item for item in costs if item[0] >= _DEFINITION // 100), key=lambda item: -item[0])[:4]
        for _, where in most:
            yield forbidden(
                where, "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            )
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        yield forbidden(field, _too_much(what, total, _DEFINITION))


def _places(place: _Place) -> Iterator[_Place]:
    yield place
    schema, kind = place.schema, place.kind
    times = _times(schema, place.times)
    for name, below in (schema.get("properties") or {}).items():
        if not isinstance(below, dict):
            continue
        identifier = escaped(name)
        found = (kind.fields or {}).get(identifier) if kind is not None and identifier is not None else None
        if found is None:
            found = declared(below, is_resource=bool(below.get("x-kubernetes-embedded-resource")))
        where = f"{place.field}.properties[{name}]"
        yield from _places(_Place(below, where, found, times, place.uncorrelated))
    for key in ("additionalProperties", "items"):
        below = schema.get(key)
        if isinstance(below, dict):
            found = kind.params[-1] if kind is not None and kind.kind in ("list", "map") else None
            lost = place.uncorrelated
            if key == "items" and schema.get("x-kubernetes-list-type") != "map":
                lost = lost or place.field
            yield from _places(_Place(below, f"{place.field}.{key}", found, times, lost))


def _times(schema: Schema, so_far: int | None) -> int | None:
    """Return how often the direct children of a schema can occur."""
    most: int | None = 1
    if schema.get("type") == "object" and schema.get("additionalProperties") not in (None, False):
        most = schema.get("maxProperties")
    elif schema.get("type") == "array":
        most = schema.get("maxItems")
    if so_far is None or type(most) is not int:
        return None
    return min(so_far * max(most, 0), _MOST)


def _rules(place: _Place, costs: list[tuple[int, str]]) -> Iterator[Cause]:
    schema, kind = place.schema, place.kind
    if kind is None:
        yield invalid(
            f"{place.field}.{RULES}", "", "failed to construct type information for x-kubernetes-validations rules"
        )
        return
    environments = Environments.of(kind)
    times = place.times if place.times is not None else REQUEST // (kind.least_size + 1)
    for index, rule in enumerate(schema[RULES]):
        where = f"{place.field}.{RULES}[{index}]"
        try:
            program = environments.read(rule, "rule", BOOL)
        except CompileError as error:
            yield invalid(f"{where}.rule", rule["rule"], str(error))
            continue
        cost = min(program.most * times, _MOST)
        costs.append((cost, f"{where}.rule"))
        if cost > _RULE:
            yield forbidden(f"{where}.rule", _too_much("estimated rule cost", cost, _RULE))
        if rule.get("messageExpression"):
            yield from _message(environments, rule, f"{where}.messageExpression", costs)
        uses_old = "oldSelf" in program.names
        if uses_old and place.uncorrelated:
            why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.uncorrelated}"
            yield invalid(f"{where}.rule", rule["rule"], why)
        if not uses_old and rule.get("optionalOldSelf") is not None:
            why = "may not be set if oldSelf is not used in rule"
            yield invalid(f"{where}.optionalOldSelf", rule["optionalOldSelf"], why)


def _message(environments: Environments, rule: Schema, where: str, costs: list[tuple[int, str]]) -> Iterator[Cause]:
    try:
        program = environments.read(rule, "messageExpression", STRING)
    except CompileError as error:
        yield invalid(
            where, rule["messageExpression"], f"messageExpression {str(error).removeprefix('messageExpression ')}"
        )
        return
    costs.append((program.most, where))
    if program.most > _RULE:
        yield forbidden(where, _too_much("estimated messageExpression cost", program.most, _RULE))


def _too_much(what: str, cost: int, limit: int) -> str:
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    return (
        f"{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, "
        "and maxLength where arrays, maps, and strings are declared)"
    )
