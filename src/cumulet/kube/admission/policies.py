"""Plug-in ValidatingAdmissionPolicy: rules in CEL with bindings (admissionregistration.k8s.io/v1).

Audit annotations are not recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.admission.binding import BoundPolicies, Matched, applies
from cumulet.kube.admission.programs import PolicyPrograms, of_policy
from cumulet.kube.admission.webhooks import AdmissionRequest
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.cel import PER_REQUEST, Budget, CelError, OutOfBudgetError
from cumulet.kube.cel.patience import within
from cumulet.kube.store import Store


class Policies(BoundPolicies):
    """The policies that refuse writes."""

    def __init__(self, store: Store, conversions: Conversions) -> None:
        names = "validatingadmissionpolicies", "validatingadmissionpolicybindings"
        super().__init__(store, conversions, *names, title="ValidatingAdmissionPolicy")

    async def check(self, request: AdmissionRequest, warnings: list[str]) -> None:
        """Refuse, or warn of, a write that violates a policy. Raises `ApiError`."""
        for bound in self.bound:
            matched = await self.match(bound, request)
            if matched is not None:
                await self._apply(matched, warnings)

    async def _apply(self, matched: Matched, warnings: list[str]) -> None:
        bound, request = matched.bound, matched.request
        programs = of_policy(bound.policy["spec"])
        for variables in self.variables(matched):

            def violations(budget: Budget, variables: Object = variables) -> list[tuple[str, str]]:
                return list(_broken(programs, variables, budget, fails=bound.fails))

            for text, reason in await within(PER_REQUEST, violations):
                actions = bound.binding["spec"].get("validationActions") or ["Deny"]
                if "Warn" in actions:
                    warnings.append(f"Validation failed for ValidatingAdmissionPolicy {bound.names}: {text}")
                if "Deny" in actions:
                    raise self.refusal(bound, request, text, reason)


def _broken(programs: PolicyPrograms, variables: Object, budget: Budget, *, fails: bool) -> Iterator[tuple[str, str]]:
    """Yield the message and the reason of each validation that does not hold."""
    try:
        if not applies(programs, variables, budget):
            return
    except CelError as error:
        if fails:
            yield str(error), "Invalid"
        return
    known = programs.known(variables, budget)
    for validation in programs.validations:
        try:
            if validation.expression.value(known, budget) is True:
                continue
            message = validation.failure(known, budget)
        except OutOfBudgetError as error:
            if fails:
                yield str(error), "Invalid"
            return
        except CelError as error:
            if not fails:
                continue
            message = str(error)
        yield message, validation.reason
