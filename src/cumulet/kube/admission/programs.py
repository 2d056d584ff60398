"""The expressions of webhooks and policies as programs, each compiled once, and their evaluation."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.cel import Budget, CelError, CompileError, OutOfBudgetError, Program, admission_variables
from cumulet.kube.cel.types import BOOL, STRING, Type
from cumulet.kube.cel.values import Value

#: The bytes of a message expression's longest result; a longer one is not used.
_MESSAGE = 5 * 1024


class Expression(NamedTuple):
    """The text of an expression and its program, or the error of its compilation."""

    text: str
    program: Program | CompileError

    def value(self, variables: Mapping[str, Value], budget: Budget) -> Value:
        """Evaluate the expression. Raises `CelError`, which names the expression, and `OutOfBudgetError`."""
        try:
            return admission_variables.evaluated(self.program, variables, budget)
        except OutOfBudgetError:
            raise
        except CelError as error:
            raise CelError(f"expression '{self.text}' resulted in error: {error}") from None


class Validation(NamedTuple):
    """A rule of a policy, and the message where it does not hold."""

    expression: Expression
    message: str
    messages: Expression | None
    reason: str

    def failure(self, variables: Mapping[str, Value], budget: Budget) -> str:
        """Return the result of the message expression, or the fixed message. Raises `OutOfBudgetError`."""
        if self.messages is not None:
            try:
                result = self.messages.value(variables, budget)
            except OutOfBudgetError as error:
                return f"failed messageExpression: {error}"
            except CelError:
                result = ""  # then the fixed message is used
            text = result.strip() if isinstance(result, str) else ""
            if text and len(text.encode(errors="replace")) <= _MESSAGE and "\n" not in text:
                return text
        return self.message.strip() or f"failed expression: {self.expression.text.strip()}"


class Mutation(NamedTuple):
    """A change that a policy makes; `merges` is true for an `ApplyConfiguration`."""

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

        def compiled(text: str, result: Type, *, authorizer: bool = True) -> Expression:
            return Expression(text, admission_variables.read(policy.compile, text, result, authorizer=authorizer))

        self.validations = [
            Validation(
                compiled(item["expression"], BOOL),
                item.get("message") or "",
                compiled(item["messageExpression"], STRING, authorizer=False)
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

    def known(self, variables: Object, budget: Budget) -> Object:
        """Return the variables with the policy's own, which are evaluated when used."""
        return admission_variables.lazy(self.variables, variables, budget)


def of_policy(spec: Object) -> PolicyPrograms:
    """Return the programs of a policy."""
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
    """Return the match conditions of a webhook or a policy."""
    texts = tuple(item.get("expression", "") for item in holder.get("matchConditions") or ())
    return _conditions(texts, bool(holder.get("paramKind")))


@functools.lru_cache(maxsize=256)
def _conditions(texts: tuple[str, ...], params: bool) -> tuple[Expression, ...]:
    environment = admission_variables.conditions(params=params)
    return tuple(Expression(text, admission_variables.read(environment.compile, text, BOOL)) for text in texts)


def holds(expressions: tuple[Expression, ...], variables: Mapping[str, Value], budget: Budget) -> bool:
    """Return whether all conditions hold.

    One that is false decides, even if others fail. Raises `CelError`.
    """
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
