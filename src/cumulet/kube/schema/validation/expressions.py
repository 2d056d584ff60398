"""Validation of the expressions in webhooks and admission policies."""

from __future__ import annotations

import functools
from collections.abc import Callable

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.validation.field_errors import Causes, duplicate, invalid, required

_CONDITIONS = 64


def conditions(holder: Object, field: str) -> Causes:
    """Validate the match conditions of a webhook or a policy."""
    # Imported here, as most servers never use an expression.
    from cumulet.kube.cel import admission_variables
    from cumulet.kube.cel.types import BOOL

    found = holder.get("matchConditions") or ()
    if len(found) > _CONDITIONS:
        yield invalid(field, len(found), f"must have at most {_CONDITIONS} items")
        return
    environment = admission_variables.conditions(params=bool(holder.get("paramKind")))
    names: set[str] = set()
    for index, condition in enumerate(found):
        where = f"{field}[{index}]"
        name = condition.get("name")
        if not name:
            yield required(f"{where}.name")
        elif name in names:
            yield duplicate(f"{where}.name", name)
        names.add(name or "")
        text = condition.get("expression", "")
        yield from _expression(text, f"{where}.expression", lambda text: environment.compile(text, BOOL))


def _expression(text: str, field: str, read: Callable[[str], object]) -> Causes:
    if not text.strip():
        yield required(field)
        return
    from cumulet.kube.cel import CelError

    try:
        read(text)
    except CelError as error:
        yield invalid(field, text, str(error))


class Policy:
    """The expressions of a policy, each of which can use the variables before it."""

    def __init__(self, spec: Object, *, mutating: bool = False) -> None:
        from cumulet.kube.cel import admission_variables

        self._spec = spec
        self._policy = admission_variables.Policy(params=bool(spec.get("paramKind")), mutating=mutating)

    def variables(self, field: str) -> Causes:
        """Validate the variables. Later expressions can use the valid ones."""
        names: set[str] = set()
        for index, variable in enumerate(self._spec.get("variables") or ()):
            name, text = variable.get("name", ""), variable.get("expression", "")
            where = f"{field}[{index}]"
            if not name:
                yield required(f"{where}.name", "name is not specified")
            elif name in names:
                yield duplicate(f"{where}.name", name)
            names.add(name)
            yield from _expression(text, f"{where}.expression", functools.partial(self._policy.declare, name))

    def condition(self, text: str, field: str) -> Causes:
        """Validate an expression of type bool."""
        from cumulet.kube.cel.types import BOOL

        yield from _expression(text, field, lambda text: self._policy.compile(text, BOOL))

    def message(self, text: str, field: str) -> Causes:
        """Validate an expression that makes a message."""
        from cumulet.kube.cel.types import STRING

        yield from _expression(text, field, lambda text: self._policy.compile(text, STRING, authorizer=False))

    def mutation(self, text: str, field: str, *, merging: bool) -> Causes:
        """Validate an expression that makes a mutation."""
        yield from _expression(text, field, lambda text: self._policy.mutation(text, merging=merging))
