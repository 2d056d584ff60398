"""The expressions of webhooks and policies as programs, each read once, and what is decided by them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from cumulet.kube.cel import Budget, CelError, CompileError, OutOfBudgetError, Program, admission_variables
from cumulet.kube.cel.types import BOOL, STRING

Object = dict[str, Any]

#: Bytes of a message that an expression makes; a longer one is not shown.
_MESSAGE = 5 * 1024


class Expression(NamedTuple):
    """An expression, and what was made of it."""

    text: str
    program: Program | CompileError

    def value(self, variables: Mapping[str, Any], budget: Budget) -> Any:
        """Raises `CelError`, which says of which expression it is, and `OutOfBudgetError`."""
        try:
            return admission_variables.evaluated(self.program, variables, budget)
        except OutOfBudgetError:
            raise
        except CelError as error:
            raise CelError(f"expression '{self.text}' resulted in error: {error}") from None


class Validation(NamedTuple):
    """What a policy asks for, and what it says where that is not so."""

    expression: Expression
    message: str
    messages: Expression | None
    reason: str

    def said(self, variables: Mapping[str, Any], budget: Budget) -> str:
        """The message of its expression, or its own. Raises `OutOfBudgetError`."""
        if self.messages is not None:
            try:
                found = self.messages.value(variables, budget)
            except OutOfBudgetError as error:
                return f"failed messageExpression: {error}"
            except CelError:
                found = ""  # then what is written is said
            text = found.strip() if isinstance(found, str) else ""
            if text and len(text.encode(errors="replace")) <= _MESSAGE and "\n" not in text:
                return text
        return self.message.strip() or f"failed expression: {self.expression.text.strip()}"


class Mutation(NamedTuple):
    """A change that a policy makes."""

    expression: Expression
    merges: bool


class PolicyPrograms:
    """All expressions of a policy."""

    def __init__(self, spec: Object) -> None:
        self.conditions = conditions(spec)
        mutations = spec.get("mutations")
        policy = admission_variables.Policy(params=bool(spec.get("paramKind")), mutating=mutations is not None)
        self.variables = [
            (item["name"], admission_variables.read(policy.declare, item["name"], item["expression"]))
            for item in spec.get("variables") or ()
        ]

        def made(text: str, **how: Any) -> Expression:
            return Expression(text, admission_variables.read(policy.compile, text, **how))

        self.validations = [
            Validation(
                made(item["expression"], result=BOOL),
                item.get("message") or "",
                made(item["messageExpression"], result=STRING, authorizer=False)
                if item.get("messageExpression")
                else None,
                item.get("reason") or "Invalid",
            )
            for item in spec.get("validations") or ()
        ]
        self.mutations = []
        for item in mutations or ():
            merges = item["patchType"] == "ApplyConfiguration"
            text = item["applyConfiguration" if merges else "jsonPatch"]["expression"]
            program = admission_variables.read(policy.mutation, text, merging=merges)
            self.mutations.append(Mutation(Expression(text, program), merges))

    def known(self, variables: dict[str, Any], budget: Budget) -> dict[str, Any]:
        """Variables, with the policy's own."""
        return admission_variables.lazy(self.variables, variables, budget)


def of_policy(spec: Object) -> PolicyPrograms:
    """The programs of a policy."""
    parts = {
        key: spec[key]
        for key in ("paramKind", "matchConditions", "variables", "validations", "mutations")
        if key in spec
    }
    return _of_policy(msgspec.json.encode(parts))


@functools.lru_cache(maxsize=256)
def _of_policy(spec: bytes) -> PolicyPrograms:
    return PolicyPrograms(msgspec.json.decode(spec))


def conditions(holder: Object) -> tuple[Expression, ...]:
    """The match conditions of a webhook or a policy."""
    texts = tuple(item.get("expression", "") for item in holder.get("matchConditions") or ())
    return _conditions(texts, bool(holder.get("paramKind")))


@functools.lru_cache(maxsize=256)
def _conditions(texts: tuple[str, ...], params: bool) -> tuple[Expression, ...]:
    environment = admission_variables.conditions(params=params)
    return tuple(Expression(text, admission_variables.read(environment.compile, text, BOOL)) for text in texts)


def holds(expressions: tuple[Expression, ...], variables: Mapping[str, Any], budget: Budget) -> bool:
    """Whether all conditions hold: one that does not decides, whatever fails. Raises `CelError`."""
    failed: list[str] = []
    for expression in expressions:
        try:
            if expression.value(variables, budget) is not True:
                return False
        except OutOfBudgetError:
            raise
        except CelError as error:
            failed.append(str(error))
    if failed:
        raise CelError(failed[0] if len(failed) == 1 else f"[{', '.join(failed)}]")
    return True
