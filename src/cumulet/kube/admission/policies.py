"""Plug-in ValidatingAdmissionPolicy: rules in CEL, bound to what they are asked about (admissionregistration.k8s.io/v1).

Audit annotations are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cumulet.kube.admission.binding import BoundPolicies, Functions, Matched, applies
from cumulet.kube.admission.webhooks import Question
from cumulet.kube.cel import CelError, evaluate, message
from cumulet.kube.custom.conversion import Conversions
from cumulet.kube.store import Store

Object = dict[str, Any]


class Policies(BoundPolicies):
    """The policies that refuse."""

    def __init__(self, store: Store, conversions: Conversions) -> None:
        names = "validatingadmissionpolicies", "validatingadmissionpolicybindings"
        super().__init__(store, conversions, *names, title="ValidatingAdmissionPolicy")

    async def check(self, question: Question, warnings: list[str]) -> None:
        """Refuse, or warn of, what a policy does not allow. Raises `ApiError`."""
        for bound in self.bound:
            matched = await self.match(bound, question)
            if matched is not None:
                self._apply(matched, warnings)

    def _apply(self, matched: Matched, warnings: list[str]) -> None:
        bound, question = matched.bound, matched.question
        functions = self.functions(question)
        for variables in self.variables(matched):
            for said, reason in _broken(bound.policy["spec"], variables, functions, fails=bound.fails):
                actions = bound.binding["spec"].get("validationActions") or ["Deny"]
                if "Warn" in actions:
                    warnings.append(f"Validation failed for ValidatingAdmissionPolicy {bound.names}: {said}")
                if "Deny" in actions:
                    raise self.refusal(bound, question, said, reason)


def _broken(spec: Object, variables: Object, functions: Functions, *, fails: bool) -> Iterator[tuple[str, str]]:
    """What the validations of a policy say, each with its reason."""
    try:
        if not applies(spec, variables, functions):
            return
    except CelError as error:
        if fails:
            yield str(error), "Invalid"
        return
    for validation in spec.get("validations") or ():
        expression = validation["expression"]
        try:
            if evaluate(expression, variables, functions) is True:
                continue
            said = message(validation, variables, f"failed expression: {expression}", functions)
        except CelError as error:
            if not fails:
                continue
            said = f"expression '{expression}' resulted in error: {error}"
        yield said, validation.get("reason") or "Invalid"
