"""Validation rules of custom resources: `x-kubernetes-validations`, expressions over a value and its old value.

Follows upstream's `apiextensions-apiserver/pkg/apiserver/schema/cel`. A rule that uses `oldSelf` applies to updates
only. A violation by an unchanged value is a warning. All rules of an object share a budget.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping
from typing import NamedTuple

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.cel import PER_REQUEST, Budget, CelError, CompileError, CostLimitError, OutOfBudgetError, Program
from cumulet.kube.cel.environment import Environment
from cumulet.kube.cel.types import BOOL, STRING, Type, optional
from cumulet.kube.cel.values import NONE, Optional, Value
from cumulet.kube.custom.expression_types import declared, escaped
from cumulet.kube.custom.expression_values import View, view

Schema = Object
#: A value as stored, and as expressions see it.
Pair = tuple[Value, Value]

RULES = "x-kubernetes-validations"
_MESSAGE = 5 * 1024
_CANCELLED = "operation cancelled: actual cost limit exceeded"


class Read(NamedTuple):
    """The compiled expressions of a rule: its condition, and the message of a violation."""

    program: Program | CompileError
    messages: Program | None
    #: Whether it uses the old value.
    is_transition: bool


class Rule:
    """A rule, compiled on first use."""

    def __init__(self, rule: Schema, kind: Type | None) -> None:
        self._rule = rule
        self._kind = kind
        self._read: Read | None = None
        self.text: str = rule["rule"]
        self.message: str = rule.get("message") or ""
        self.reason: str = rule.get("reason") or "FieldValueInvalid"
        self.path: str = rule.get("fieldPath") or ""
        #: Whether the old value can be missing.
        self.optional_before = bool(rule.get("optionalOldSelf"))

    @property
    def shown(self) -> str:
        """The rule's text in errors."""
        return (self.message or self.text).strip()

    def read(self, budget: Budget) -> Read:
        """Return the compiled expressions. Raises `LengthyError`."""
        if self._read is None:
            budget.charge_reading()
            self._read = self._expressions()
        return self._read

    def _expressions(self) -> Read:
        if self._kind is None:
            why = "failed to convert to declType for CEL validation rules"
            return Read(CompileError(why), None, is_transition=False)
        environments = Environments.of(self._kind)
        messages: Program | None = None
        try:
            program = environments.read(self._rule, "rule", BOOL)
            if self._rule.get("messageExpression"):
                messages = environments.read(self._rule, "messageExpression", STRING)
        except CompileError as error:  # another version accepted it
            return Read(error, None, is_transition=False)
        return Read(program, messages, "oldSelf" in program.names)


class RuleNode(NamedTuple):
    """The rules of a schema, and of the schemas below it that have any."""

    rules: tuple[Rule, ...]
    kind: str
    properties: Mapping[str, RuleNode]
    others: RuleNode | None
    items: RuleNode | None
    parts: tuple[RuleNode, ...]
    keys: tuple[str, ...]


def has_rules(schema: Schema) -> bool:
    """Whether a schema has a rule anywhere."""
    parts = (part for part in schema.get("allOf") or () if isinstance(part, dict))
    return bool(schema.get(RULES)) or any(has_rules(below) for below in [*_below(schema), *parts])


def _below(schema: Schema) -> Iterator[Schema]:
    yield from (item for item in (schema.get("properties") or {}).values() if isinstance(item, dict))
    for key in ("additionalProperties", "items"):
        if isinstance(schema.get(key), dict):
            yield schema[key]


class Environments(NamedTuple):
    """The environments of a schema's rules. `oldSelf` is a value, or an optional value."""

    plain: Environment
    optional: Environment

    @classmethod
    def of(cls, kind: Type) -> Environments:
        """Return the environments for values of a type."""
        return cls(
            Environment({"self": kind, "oldSelf": kind}), Environment({"self": kind, "oldSelf": optional(kind)})
        )

    def read(self, rule: Schema, key: str, result: Type) -> Program:
        """Compile an expression of a rule. Raises `CompileError`."""
        environment = self.optional if rule.get("optionalOldSelf") else self.plain
        program = environment.compile(rule[key])
        if program.result != result:
            what = (
                "cel expression must evaluate to a bool"
                if key == "rule"
                else "messageExpression must evaluate to a string"
            )
            raise CompileError(what)
        return program


class Rules:
    """All rules of a schema."""

    def __init__(self, schema: Schema) -> None:
        root = declared(schema, is_resource=True)
        self._root = _node(schema, schema, root, is_resource=True)
        self._view: View | None = view(schema)

    def broken(self, obj: Object, old: Object | None, budget: Budget | None = None) -> tuple[list[Cause], list[str]]:
        """Return the violations by an object, or by its update, and the violations that are only warnings."""
        if self._root is None:
            return [], []
        walk = _Walk(budget or Budget(PER_REQUEST))
        shown: Value = obj
        before: Value = old
        if self._view is not None:
            shown, before = self._view(obj), None if old is None else self._view(old)
        with contextlib.suppress(_StopError):
            walk.check(self._root, (obj, shown), (old, before), "", is_same=old is not None and obj == old)
        return walk.causes, walk.warnings


def _node(schema: Schema, types: Schema, kind: Type | None, *, is_resource: bool) -> RuleNode | None:
    """Return the rules of a schema. `types` is the schema, possibly an enclosing one, that declares the type."""
    rules = tuple(Rule(rule, kind) for rule in schema.get(RULES) or () if (rule.get("rule") or "").strip())
    properties: dict[str, RuleNode] = {}
    for name, below in (schema.get("properties") or {}).items():
        spine = (types.get("properties") or {}).get(name)
        if not isinstance(below, dict) or not isinstance(spine, dict):
            continue
        identifier = escaped(name)
        if identifier is None:
            found = declared(spine, is_resource=bool(spine.get("x-kubernetes-embedded-resource")))
        else:
            found = (kind.fields or {}).get(identifier) if kind is not None else None
        if found is not None and (made := _node(below, spine, found, is_resource=False)) is not None:
            properties[name] = made
    item = kind.params[-1] if kind is not None and kind.kind in ("list", "map") else None
    made_below: dict[str, RuleNode | None] = {}
    for key in ("items", "additionalProperties"):
        below, spine = schema.get(key), types.get(key)
        is_there = isinstance(below, dict) and isinstance(spine, dict)
        made_below[key] = _node(below, spine, item, is_resource=False) if is_there else None  # type: ignore[arg-type]
    parts = tuple(
        made
        for part in schema.get("allOf") or ()
        if isinstance(part, dict) and (made := _node(part, types, kind, is_resource=is_resource)) is not None
    )
    if not (rules or properties or parts or any(made_below.values())):
        return None
    keys = (
        tuple(types.get("x-kubernetes-list-map-keys") or ()) if types.get("x-kubernetes-list-type") == "map" else ()
    )
    return RuleNode(
        rules, types.get("type", ""), properties, made_below["additionalProperties"], made_below["items"], parts, keys
    )


class _StopError(Exception):
    """No further rule is evaluated."""


class _Walk:
    """The evaluation of all rules against one object."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.causes: list[Cause] = []
        self.warnings: list[str] = []

    def check(self, node: RuleNode, new: Pair, old: Pair, path: str, *, is_same: bool) -> None:
        """Evaluate the rules of a node. Values come in pairs: as stored, and as expressions see them."""
        value, shown = new
        if value is None:
            return
        self._evaluate(node, shown, old, path, is_same=is_same)
        for part in node.parts:
            self.check(part, new, old, path, is_same=is_same)
        before, _ = old
        if isinstance(value, list) and node.items is not None:
            found = _by_keys(before, node.keys)
            for index, item in enumerate(value):
                place = found.get(_key(item, node.keys)) if node.keys else None
                earlier = (None, None) if place is None else _element(old, place)
                same = is_same or (place is not None and item == earlier[0])
                self.check(node.items, _element(new, index), earlier, f"{path}[{index}]", is_same=same)
        elif isinstance(value, dict):
            for key, item in value.items():
                below = node.properties.get(key, node.others)
                if below is None:
                    continue
                name = key if node.others is below else (escaped(key) or key)
                is_known = isinstance(before, dict) and key in before
                earlier = _entry(old, key, name) if is_known else (None, None)
                same = is_same or (is_known and item == earlier[0])
                where = f"{path}[{key}]" if node.others is below else (f"{path}.{key}" if path else key)
                self.check(below, _entry(new, key, name), earlier, where, is_same=same)

    def _evaluate(self, node: RuleNode, shown: Value, old: Pair, path: str, *, is_same: bool) -> None:
        if not node.rules:
            return
        before, shown_before = old
        plain = {"self": shown} if before is None else {"self": shown, "oldSelf": shown_before}
        with_optional = {"self": shown, "oldSelf": NONE if before is None else Optional(True, shown_before)}
        for rule in node.rules:
            read = rule.read(self._budget)
            if read.is_transition and before is None and not rule.optional_before:
                continue
            if isinstance(read.program, CompileError):
                self._add(node, path, f"rule compile error: {read.program}")
                continue
            variables = with_optional if rule.optional_before else plain
            try:
                if read.program.evaluate(variables, self._budget) is True:
                    continue
            except OutOfBudgetError as error:
                self._add(node, path, str(error))
                raise _StopError from None
            except CostLimitError:
                why = "no further validation rules will be run due to call cost exceeds limit for rule"
                self._add(node, path, f"'{_CANCELLED}': {why}: {rule.shown}")
                raise _StopError from None
            except CelError as error:
                self._add(node, path, _failed(str(error), rule))
                continue
            self._refuse(node, rule, variables, path, is_same=is_same)

    def _add(self, node: RuleNode, path: str, why: str) -> None:
        self.causes.append(Cause(path, "FieldValueInvalid", f'Invalid value: "{node.kind}": {why}'))

    def _refuse(
        self, node: RuleNode, rule: Rule, variables: Mapping[str, Value], path: str, *, is_same: bool
    ) -> None:
        read = rule.read(self._budget)
        message, stops = self._violation(rule, read, variables)
        where = f"{path}{rule.path}" if path else rule.path.removeprefix(".")
        if stops:
            cause = Cause(where, "FieldValueInvalid", f'Invalid value: "{node.kind}": {message}')
        else:
            start = {
                "FieldValueForbidden": "Forbidden",
                "FieldValueRequired": "Required value",
                "FieldValueDuplicate": f'Duplicate value: "{node.kind}"',
            }.get(rule.reason, f'Invalid value: "{node.kind}"')
            cause = Cause(where, rule.reason, f"{start}: {message}")
        if is_same and not read.is_transition:
            self.warnings.append(f"{cause.field}: {cause.message}")
        else:
            self.causes.append(cause)
        if stops:
            raise _StopError

    def _violation(self, rule: Rule, read: Read, variables: Mapping[str, Value]) -> tuple[str, bool]:
        """Return the message of a violation, and whether evaluation stops."""
        if read.messages is not None:
            try:
                found = read.messages.evaluate(variables, self._budget)
            except OutOfBudgetError:
                why = "messageExpression evaluation failed due to running out of cost budget"
                return f"{why}, no further validation rules will be run", True
            except CostLimitError:
                return (
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression",
                    True,
                )
            except CelError:
                found = ""  # the static message is used
            text = found.strip() if isinstance(found, str) else ""
            if text and "\n" not in text and len(text.encode(errors="replace")) <= _MESSAGE:
                return text, False
        return rule.message.strip() or f"failed rule: {rule.text.strip()}", False


def _element(pair: Pair, index: int) -> Pair:
    value, shown = pair
    assert isinstance(value, list)
    assert isinstance(shown, list)
    return value[index], shown[index]


def _entry(pair: Pair, key: str, name: str) -> Pair:
    value, shown = pair
    assert isinstance(value, dict)
    assert isinstance(shown, dict)
    return value[key], shown[name]


def _failed(why: str, rule: Rule) -> str:
    if why.startswith("no such overload"):
        did_not = "call arguments did not match a supported operator, function or macro signature for rule"
        return f"'{why}': {did_not}: {rule.shown}"
    return f"{why} evaluating rule: {rule.shown}"


def _key(item: Value, keys: tuple[str, ...]) -> Hashable:
    if not isinstance(item, dict):
        return None
    return tuple((key in item, str(item.get(key)), type(item.get(key)).__name__) for key in keys)


def _by_keys(items: Value, keys: tuple[str, ...]) -> dict[Hashable, int]:
    """Return the indexes of a list's elements by their key."""
    if not keys or not isinstance(items, list):
        return {}
    return {_key(item, keys): index for index, item in reversed(list(enumerate(items))) if isinstance(item, dict)}
