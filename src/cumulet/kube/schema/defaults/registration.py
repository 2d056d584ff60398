"""Defaults of webhooks, admission policies, custom resource definitions and flow control."""

from __future__ import annotations

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.defaults.values import default


def webhooks(obj: Object) -> None:
    for webhook in obj.get("webhooks") or ():
        default(
            webhook,
            failurePolicy="Fail",
            matchPolicy="Equivalent",
            namespaceSelector={},
            objectSelector={},
            timeoutSeconds=10,
        )
        for rule in webhook.get("rules") or ():
            default(rule, scope="*")
        if (service := (webhook.get("clientConfig") or {}).get("service")) is not None:
            default(service, port=443)


def mutating_webhooks(obj: Object) -> None:
    webhooks(obj)
    for webhook in obj.get("webhooks") or ():
        default(webhook, reinvocationPolicy="Never")


def policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    default(spec, failurePolicy="Fail")
    if (match := spec.get("matchConstraints")) is not None:
        _match(match)


def policy_binding(obj: Object) -> None:
    if (match := (obj.get("spec") or {}).get("matchResources")) is not None:
        _match(match)


def _match(match: Object) -> None:
    default(match, matchPolicy="Equivalent", namespaceSelector={}, objectSelector={})
    for key in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(key) or ():
            default(rule, scope="*")


def definition(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if kind := names.get("kind"):
        default(names, singular=fold(kind), listKind=f"{kind}List")
    default(spec, conversion={"strategy": "None"})


def flow_schema(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000


def priority_level(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    for kind, shares in (("limited", 30), ("exempt", 0)):
        if (found := spec.get(kind)) is not None:
            default(found, nominalConcurrencyShares=shares, lendablePercent=0)
