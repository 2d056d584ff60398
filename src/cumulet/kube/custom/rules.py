"""Validation rules of custom resources: `x-kubernetes-validations`, expressions over a value and what it was before.

Follows upstream's `apiextensions-apiserver/pkg/apiserver/schema/cel`: names that are no identifiers are escaped,
strings with a format are what the format says, and a rule about `oldSelf` is asked of changes alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cumulet.kube.cel import CelError, check, evaluate, message
from cumulet.kube.status import Cause

Schema = dict[str, Any]

_RULES = "x-kubernetes-validations"
_OLD = re.compile(r"\boldSelf\b", re.ASCII)
_ESCAPES = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))
_RESERVED = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")
_RULES_LIMIT = 100


def has_rules(schema: Schema) -> bool:
    """Whether a schema has a rule anywhere."""
    return _RULES in schema or any(has_rules(below) for below in _below(schema))


def problems(schema: Schema, field: str) -> Iterator[tuple[str, Any, str]]:
    """Path, value and reason of each rule of this very schema that cannot be read."""
    rules = schema.get(_RULES) or []
    if not isinstance(rules, list) or len(rules) > _RULES_LIMIT:
        yield f"{field}.{_RULES}", "", f"must be a list of at most {_RULES_LIMIT} rules"
        return
    for index, rule in enumerate(rules):
        where = f"{field}.{_RULES}[{index}]"
        for key in ("rule", "messageExpression"):
            text = rule.get(key) or ""
            if key == "rule" and not text.strip():
                yield f"{where}.rule", text, "rule is not specified"
            elif text:
                try:
                    check(text, ("self", "oldSelf"))
                except CelError as error:
                    yield f"{where}.{key}", text, str(error)
        if rule.get("reason") not in (None, *_REASONS):
            yield f"{where}.reason", rule["reason"], f"supported values: {', '.join(_REASONS)}"


def broken(value: Any, old: Any, schema: Schema, path: str) -> Iterator[Cause]:
    """What the rules of a schema, and of the schemas in it, do not allow."""
    if rules := schema.get(_RULES):
        yield from _broken_here(value, old, schema, rules, path)
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        properties = schema.get("properties") or {}
        others = schema.get("additionalProperties")
        for key, item in value.items():
            below = properties.get(key, others)
            if isinstance(below, dict):
                yield from broken(item, before.get(key), below, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        keys = schema.get("x-kubernetes-list-map-keys") or ()
        for index, item in enumerate(value):
            yield from broken(item, _same(item, old, keys), items, f"{path}[{index}]")


def _broken_here(value: Any, old: Any, schema: Schema, rules: list[Schema], path: str) -> Iterator[Cause]:
    variables = {"self": _shown(value, schema)}
    if old is not None:
        variables["oldSelf"] = _shown(old, schema)
    for rule in rules:
        text = rule["rule"]
        if old is None and _OLD.search(text):
            continue
        field = path + (rule.get("fieldPath") or "")
        try:
            if evaluate(text, variables) is True:
                continue
            said = message(rule, variables, f"failed rule: {rule['rule'].strip()}")
        except CelError as error:
            said = f"rule evaluation error: {error}"
        reason = rule.get("reason") or "FieldValueInvalid"
        words = {
            "FieldValueForbidden": "Forbidden",
            "FieldValueRequired": "Required value",
            "FieldValueDuplicate": f'Duplicate value: "{schema.get("type", "")}"',
        }
        start = words.get(reason, f'Invalid value: "{schema.get("type", "")}"')
        yield Cause(field.lstrip("."), reason, f"{start}: {said}")


def _same(item: Any, old: Any, keys: Any) -> Any:
    """The element of a list that was this one before, where the list says how to tell."""
    if not keys or not isinstance(old, list) or not isinstance(item, dict):
        return None
    own = [item.get(key) for key in keys]
    return next((other for other in old if isinstance(other, dict) and [other.get(key) for key in keys] == own), None)


def _shown(value: Any, schema: Schema) -> Any:
    """A value as an expression sees it."""
    if isinstance(value, dict):
        properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
        found = {}
        for key, item in value.items():
            if key in properties:
                found[_escaped(key)] = _shown(item, properties[key])
            else:
                found[key] = _shown(item, others if isinstance(others, dict) else {})
        return found
    if isinstance(value, list):
        items = schema.get("items")
        return [_shown(item, items if isinstance(items, dict) else {}) for item in value]
    if isinstance(value, str) and schema.get("format") in ("date-time", "date"):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    if schema.get("type") == "number" and type(value) is int:
        return float(value)
    return value


def _escaped(key: str) -> str:
    if key in _RESERVED:
        return f"__{key}__"
    for plain, escape in _ESCAPES:
        key = key.replace(plain, escape)
    return key


def _below(schema: Schema) -> Iterator[Schema]:
    yield from (item for item in (schema.get("properties") or {}).values() if isinstance(item, dict))
    for key in ("additionalProperties", "items"):
        if isinstance(schema.get(key), dict):
            yield schema[key]
