"""Validation of admission webhook configurations and admission policies."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.name_formats import SUBDOMAIN, dns_subdomain
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.validation import expressions
from cumulet.kube.schema.validation.field_errors import Causes, duplicate, invalid, required, unsupported

_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
_ACTIONS = ("Audit", "Deny", "Warn")
_MUTATED = ("*", "CREATE", "UPDATE")
_PATCHES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
_SCOPES = ("*", "Cluster", "Namespaced")


def webhook_configuration(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a validating or mutating webhook configuration."""
    causes: list[Cause] = []
    names: set[str] = set()
    for index, webhook in enumerate(obj.get("webhooks") or ()):
        field = f"webhooks[{index}]"
        causes += _webhook(webhook, field)
        if webhook.get("name") in names:
            causes.append(duplicate(f"{field}.name", webhook["name"]))
        names.add(webhook.get("name", ""))
    return causes


def admission_policy(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a validating admission policy."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    match = spec.get("matchConstraints")
    if not match or not match.get("resourceRules"):
        causes.append(required("spec.matchConstraints.resourceRules" if match else "spec.matchConstraints"))
    for index, rule in enumerate((match or {}).get("resourceRules") or ()):
        causes += _rule(rule, f"spec.matchConstraints.resourceRules[{index}]")
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        why = "validations or auditAnnotations must be non-empty; neither were provided"
        causes.append(required("spec.validations", why))
    if spec.get("failurePolicy") not in (None, "Fail", "Ignore"):
        causes.append(unsupported("spec.failurePolicy", spec["failurePolicy"], ("Fail", "Ignore")))
    policy = expressions.Policy(spec)
    causes += expressions.conditions(spec, "spec.matchConditions")
    causes += policy.variables("spec.variables")
    for index, validation in enumerate(spec.get("validations") or ()):
        where = f"spec.validations[{index}]"
        causes += policy.condition(validation.get("expression", ""), f"{where}.expression")
        if validation.get("messageExpression"):
            causes += policy.message(validation["messageExpression"], f"{where}.messageExpression")
        if validation.get("reason") not in (None, *_REASONS):
            causes.append(unsupported(f"{where}.reason", validation["reason"], _REASONS))
    return causes


def mutating_policy(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a mutating admission policy."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    match = spec.get("matchConstraints")
    if not match or not match.get("resourceRules"):
        causes.append(required("spec.matchConstraints.resourceRules" if match else "spec.matchConstraints"))
    for index, rule in enumerate((match or {}).get("resourceRules") or ()):
        causes += _rule(rule, f"spec.matchConstraints.resourceRules[{index}]")
        for operation in rule.get("operations") or ():
            if operation not in _MUTATED:
                field = "spec.matchConstraints.resourceRules.operations"
                causes.append(unsupported(field, operation, _MUTATED))
    if spec.get("failurePolicy") not in (None, "Fail", "Ignore"):
        causes.append(unsupported("spec.failurePolicy", spec["failurePolicy"], ("Fail", "Ignore")))
    again = spec.get("reinvocationPolicy")
    if not again:
        causes.append(required("spec.reinvocationPolicy"))
    elif again not in ("IfNeeded", "Never"):
        causes.append(unsupported("spec.reinvocationPolicy", again, ("IfNeeded", "Never")))
    policy = expressions.Policy(spec, mutating=True)
    causes += expressions.conditions(spec, "spec.matchConditions")
    causes += policy.variables("spec.variables")
    if not spec.get("mutations"):
        causes.append(required("spec.mutations", "mutations must contain at least one item"))
    for index, mutation in enumerate(spec.get("mutations") or ()):
        causes += _mutation(mutation, f"spec.mutations[{index}]", policy)
    return causes


def _mutation(mutation: Object, field: str, policy: expressions.Policy) -> Causes:
    kind = mutation.get("patchType")
    if not kind:
        yield required(f"{field}.patchType")
        return
    if kind not in _PATCHES:
        yield unsupported(f"{field}.patchType", kind, tuple(_PATCHES))
        return
    for other, key in _PATCHES.items():
        if other == kind and not mutation.get(key):
            yield required(f"{field}.{key}", f"must be specified when patchType is {kind}")
        elif other != kind and mutation.get(key):
            yield invalid(f"{field}.{key}", f"{{{key}}}", f"must not be specified when patchType is {kind}")
    if found := mutation.get(_PATCHES[kind]):
        where, text = f"{field}.{_PATCHES[kind]}.expression", found.get("expression", "")
        yield from policy.mutation(text, where, merging=kind == "ApplyConfiguration")


def mutating_binding(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a binding of a mutating admission policy."""
    return [] if (obj.get("spec") or {}).get("policyName") else [required("spec.policyName")]


def policy_binding(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a binding of a validating admission policy."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("policyName"):
        causes.append(required("spec.policyName"))
    actions = spec.get("validationActions") or []
    if not actions:
        causes.append(required("spec.validationActions", "at least one validation action is required"))
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            causes.append(unsupported(f"spec.validationActions[{index}]", action, _ACTIONS))
    if "Deny" in actions and "Warn" in actions:
        why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"
        causes.append(invalid("spec.validationActions", actions, why))
    return causes


def _webhook(webhook: Object, field: str) -> Causes:
    name = webhook.get("name", "")
    if not re.fullmatch(SUBDOMAIN, name):
        yield invalid(f"{field}.name", name, dns_subdomain(name)[0])
    elif name.count(".") < 2:
        yield invalid(f"{field}.name", name, "should be a domain with at least three segments separated by dots")
    for key, allowed in (
        ("failurePolicy", ("Fail", "Ignore")),
        ("matchPolicy", ("Equivalent", "Exact")),
        ("reinvocationPolicy", ("IfNeeded", "Never")),
    ):
        if webhook.get(key) not in (None, *allowed):
            yield unsupported(f"{field}.{key}", webhook[key], allowed)
    effects = webhook.get("sideEffects")
    if effects is None:
        yield required(f"{field}.sideEffects", "must specify one of None, NoneOnDryRun")
    elif effects not in ("None", "NoneOnDryRun"):
        yield unsupported(f"{field}.sideEffects", effects, ("None", "NoneOnDryRun"))
    if not 1 <= webhook.get("timeoutSeconds", 10) <= 30:
        yield invalid(
            f"{field}.timeoutSeconds",
            webhook["timeoutSeconds"],
            "the timeout value must be between 1 and 30 seconds",
        )
    versions = webhook.get("admissionReviewVersions") or []
    if not versions:
        yield required(f"{field}.admissionReviewVersions", "must specify one of v1, v1beta1")
    elif not {"v1", "v1beta1"} & set(versions):
        yield invalid(f"{field}.admissionReviewVersions", versions, "must include at least one of v1, v1beta1")
    yield from client_config(webhook.get("clientConfig") or {}, f"{field}.clientConfig")
    for index, rule in enumerate(webhook.get("rules") or ()):
        yield from _rule(rule, f"{field}.rules[{index}]")
    yield from expressions.conditions(webhook, f"{field}.matchConditions")


def client_config(config: Object, field: str) -> Causes:
    """Validate how a webhook is reached."""
    if ("url" in config) == ("service" in config):
        yield required(field, "exactly one of url or service is required")
    elif "url" in config:
        parts = urlsplit(config["url"])
        if parts.scheme != "https":
            yield invalid(
                f"{field}.url",
                parts.scheme,
                "'https' is the only allowed URL scheme; desired format: https://host[/path]",
            )
        elif not parts.hostname:
            yield invalid(
                f"{field}.url", parts.hostname or "", "host must be specified; desired format: https://host[/path]"
            )
        elif parts.username or parts.query or parts.fragment:
            yield invalid(
                f"{field}.url", config["url"], "user information, query and fragment are not permitted in the URL"
            )
    else:
        service = config["service"]
        for key in ("name", "namespace"):
            if not service.get(key):
                yield required(f"{field}.service.{key}", f"service {key} is required")


def _rule(rule: Object, field: str) -> Causes:
    for key in ("operations", "apiGroups", "apiVersions", "resources"):
        if not rule.get(key):
            yield required(f"{field}.{key}")
    for index, operation in enumerate(rule.get("operations") or ()):
        if operation not in _OPERATIONS:
            yield unsupported(f"{field}.operations[{index}]", operation, _OPERATIONS)
    if rule.get("scope") not in (None, *_SCOPES):
        yield unsupported(f"{field}.scope", rule["scope"], _SCOPES)
