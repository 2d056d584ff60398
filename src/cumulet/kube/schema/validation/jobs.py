"""Validation of jobs and cron jobs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.label_selectors import selects
from cumulet.kube.schema.validation.field_errors import (
    Causes,
    all_invalid,
    duplicate,
    invalid,
    required,
    too_long,
    too_many,
    unsupported,
)
from cumulet.kube.schema.validation.metadata import immutable
from cumulet.kube.schema.validation.pods import template
from cumulet.kube.schema.validation.schedules import schedule, time_zone
from cumulet.kube.schema.validation.selectors import label_selector
from cumulet.kube.schema.validation.workloads import not_negative

_NUMBERS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_INDEXED_LIMIT, _MANY_LIMIT = 100_000, 10_000
_RULES_LIMIT, _CODES_LIMIT, _INDEXES_LIMIT, _MANAGER_LIMIT = 20, 255, 64 * 1024, 63
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_STATUSES = ("False", "True", "Unknown")
_IMMUTABLE = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
_DIRECTIVES = ("nodeSelector", "tolerations", "schedulingGates")


def job(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a job, or an update of one."""
    spec = obj.get("spec") or {}
    causes = [*(_generated(obj) if old is None else ()), *job_spec(spec, "spec")]
    selector = spec.get("selector")
    if selector is None:
        causes.append(required("spec.selector"))
    else:
        causes += label_selector(selector, "spec.selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if selector is None or not selects(selector, labels or {}):
        causes.append(invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    if old is not None:
        return [*causes, *_update(spec, old)]
    if spec.get("completionMode") == "Indexed" and (count := spec.get("completions") or 0) > 0:
        name = obj["metadata"].get("name", "")
        if name_formats.dns_label(f"{name}-{count - 1}"):
            why = f"will not able to create pod with invalid DNS label: {name}-{count - 1}"
            causes.append(invalid("metadata.name", name, why))
    return causes


def _generated(obj: Object) -> Causes:
    """Validate a selector and labels that the server should generate but the client set."""
    spec, metadata = obj.get("spec") or {}, obj["metadata"]
    if spec.get("manualSelector") or spec.get("selector") is None:
        return
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    wanted = {
        f"{prefix}{key}": value
        for prefix in ("", "batch.kubernetes.io/")
        for key, value in (("controller-uid", metadata.get("uid", "")), ("job-name", metadata.get("name", "")))
    }
    for key, value in wanted.items():
        where = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            yield required(where, f"must be '{value}'")
        elif labels[key] != value:
            yield invalid(where, labels, f"must be '{value}'")
    if not selects(spec["selector"], wanted):
        yield invalid("spec.selector", spec["selector"], "`selector` not auto-generated")


def _update(spec: Object, old: Object) -> Causes:
    before = old.get("spec") or {}
    if spec.get("completionMode") != "Indexed":
        yield from immutable(spec.get("completions"), before.get("completions"), "spec.completions")
    elif spec.get("completions") not in (before.get("completions"), None, spec.get("parallelism")):
        why = "can only be modified in tandem with spec.parallelism"
        yield invalid("spec.completions", spec["completions"], why)
    yield from immutable(spec.get("selector"), before.get("selector"), "spec.selector")
    new, was = spec.get("template") or {}, before.get("template") or {}
    status = old.get("status") or {}
    suspended = bool(before.get("suspend")) and not status.get("active")
    if suspended and not status.get("startTime"):
        was = _with_directives(was, new)
    if suspended:
        yield from immutable(new.get("spec"), _with_resources(was, new).get("spec"), "spec.template.spec")
    elif new != was:
        yield invalid("spec.template", new, name_formats.IMMUTABLE)
    for key in _IMMUTABLE:
        yield from immutable(spec.get(key), before.get(key), f"spec.{key}")


def _with_directives(old: Object, new: Object) -> Object:
    """Return the old template of a job that never started, with the fields that can still change: placement, labels and annotations."""
    spec, wanted = dict(old.get("spec") or {}), new.get("spec") or {}
    for key in _DIRECTIVES:
        spec.pop(key, None)
        if key in wanted:
            spec[key] = wanted[key]
    affinity = {key: value for key, value in (spec.get("affinity") or {}).items() if key != "nodeAffinity"}
    if "nodeAffinity" in (wanted.get("affinity") or {}):
        affinity["nodeAffinity"] = wanted["affinity"]["nodeAffinity"]
    spec.pop("affinity", None)
    if affinity or "affinity" in wanted:
        spec["affinity"] = affinity
    return {"metadata": new.get("metadata"), "spec": spec}


def _with_resources(old: Object, new: Object) -> Object:
    spec = dict(old.get("spec") or {})
    for key in ("containers", "initContainers"):
        had, wanted = spec.get(key) or [], (new.get("spec") or {}).get(key) or []
        if key in spec and len(had) == len(wanted):
            spec[key] = [
                {**was, "resources": now.get("resources", {})} if was.get("name") == now.get("name") else was
                for was, now in zip(had, wanted, strict=True)
            ]
    return {**old, "spec": spec}


def job_spec(spec: Object, field: str) -> Causes:
    """Validate the spec of a job at a path, except for its selector."""
    yield from not_negative(spec, field, *_NUMBERS)
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        yield required(f"{field}.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if (manager := spec.get("managedBy")) is not None:
        yield from _domain_path(manager, f"{field}.managedBy")
        if len(manager) > _MANAGER_LIMIT:
            yield too_long(f"{field}.managedBy", _MANAGER_LIMIT)
    yield from _completion(spec, field)
    if (policy := spec.get("podFailurePolicy")) is not None:
        yield from _failure(policy, spec, f"{field}.podFailurePolicy.rules")
    if (policy := spec.get("successPolicy")) is not None:
        if spec.get("completionMode") != "Indexed":
            yield invalid(f"{field}.successPolicy", policy, "requires indexed completion mode")
        else:
            yield from _success(policy, spec.get("completions") or 0, f"{field}.successPolicy.rules")
    replacement = spec.get("podReplacementPolicy")
    ways = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
    if replacement not in (None, *ways):
        yield unsupported(f"{field}.podReplacementPolicy", replacement, ways)
    found = spec.get("template") or {}
    yield from template(found, f"{field}.template")
    yield from _restart_policy((found.get("spec") or {}).get("restartPolicy", ""), spec, f"{field}.template.spec")


def _restart_policy(policy: str, spec: Object, field: str) -> Causes:
    if policy in ("Always", ""):
        yield required(f"{field}.restartPolicy", 'valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        yield unsupported(f"{field}.restartPolicy", policy, ("OnFailure", "Never"), in_order=True)
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        yield invalid(f"{field}.restartPolicy", policy, why)


def _domain_path(text: str, field: str) -> Causes:
    host, _, path = text.partition("/")
    if not text:
        yield required(field)
    elif not host or not path:
        yield invalid(field, text, 'must be a domain-prefixed path (such as "acme.io/foo")')
    else:
        yield from all_invalid(field, host, name_formats.dns_subdomain(host))
        yield from all_invalid(field, path, name_formats.path_characters(path))


def _completion(spec: Object, field: str) -> Causes:
    mode = spec.get("completionMode")
    completions, parallelism = spec.get("completions"), spec.get("parallelism") or 0
    failed, per_index = spec.get("maxFailedIndexes"), spec.get("backoffLimitPerIndex")
    if mode not in (None, "Indexed", "NonIndexed"):
        yield unsupported(f"{field}.completionMode", mode, ("NonIndexed", "Indexed"), in_order=True)
    if mode == "Indexed":
        if completions is None:
            yield required(f"{field}.completions", "when completion mode is Indexed")
        if parallelism > _INDEXED_LIMIT:
            why = f"must be less than or equal to {_INDEXED_LIMIT} when completion mode is Indexed"
            yield invalid(f"{field}.parallelism", parallelism, why)
        if completions is not None and failed is not None and failed > completions:
            yield invalid(f"{field}.maxFailedIndexes", failed, "must be less than or equal to completions")
        if failed is not None and failed > _INDEXED_LIMIT:
            yield invalid(f"{field}.maxFailedIndexes", failed, f"must be less than or equal to {_INDEXED_LIMIT}")
        if (completions or 0) > _INDEXED_LIMIT and per_index is not None:
            yield from _many(parallelism, failed, field)
    elif mode in (None, "NonIndexed"):
        for key, value in (("backoffLimitPerIndex", per_index), ("maxFailedIndexes", failed)):
            if value is not None:
                yield invalid(f"{field}.{key}", value, "requires indexed completion mode")


def _many(parallelism: int, failed: int | None, field: str) -> Causes:
    why = (
        f"must be less than or equal to {_MANY_LIMIT} when completions are above {_INDEXED_LIMIT} and used with "
        "backoff limit per index"
    )
    if failed is None:
        message = f"must be specified when completions is above {_INDEXED_LIMIT}"
        yield required(f"{field}.maxFailedIndexes", message)
    if parallelism > _MANY_LIMIT:
        yield invalid(f"{field}.parallelism", parallelism, why)
    if failed is not None and failed > _MANY_LIMIT:
        yield invalid(f"{field}.maxFailedIndexes", failed, why)


def _failure(policy: Object, spec: Object, field: str) -> Causes:
    rules = policy.get("rules") or []
    if len(rules) > _RULES_LIMIT:
        yield too_many(field, len(rules), _RULES_LIMIT)
    pod = (spec.get("template") or {}).get("spec") or {}
    names = {item.get("name") for key in ("containers", "initContainers") for item in pod.get(key) or ()}
    for index, rule in enumerate(rules):
        yield from _failure_rule(rule, spec, names, f"{field}[{index}]")


def _failure_rule(rule: Object, spec: Object, names: set[str], field: str) -> Causes:
    action, codes, conditions = rule.get("action", ""), rule.get("onExitCodes"), rule.get("onPodConditions") or []
    if not action:
        yield required(f"{field}.action", f"valid values: {_listed(_ACTIONS)}")
    elif action == "FailIndex":
        if spec.get("backoffLimitPerIndex") is None:
            yield invalid(f"{field}.action", action, "requires the backoffLimitPerIndex to be set")
    elif action not in _ACTIONS:
        yield unsupported(f"{field}.action", action, _ACTIONS)
    if codes is not None:
        yield from _exit_codes(codes, names, f"{field}.onExitCodes")
    if len(conditions) > _RULES_LIMIT:
        yield too_many(f"{field}.onPodConditions", len(conditions), _RULES_LIMIT)
    for index, pattern in enumerate(conditions):
        where, kind, status = f"{field}.onPodConditions[{index}]", pattern.get("type", ""), pattern.get("status", "")
        yield from all_invalid(f"{where}.type", kind, name_formats.qualified_name(kind))
        if not status:
            yield required(f"{where}.status", f"valid values: {_listed(_STATUSES)}")
        elif status not in _STATUSES:
            yield unsupported(f"{where}.status", status, _STATUSES)
    if codes is not None and conditions:
        yield _invalid(field, "specifying both OnExitCodes and OnPodConditions is not supported")
    if codes is None and not conditions:
        yield _invalid(field, "specifying one of OnExitCodes and OnPodConditions is required")


def _invalid(field: str, detail: str) -> Cause:
    """An invalid value that the message does not show."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {detail}")


def _listed(values: Iterable[str]) -> str:
    return "[" + " ".join(f'"{value}"' for value in values) + "]"


def _exit_codes(codes: Object, names: set[str], field: str) -> Causes:
    operator, values = codes.get("operator", ""), codes.get("values") or []
    if not operator:
        yield required(f"{field}.operator", f"valid values: {_listed(('In', 'NotIn'))}")
    elif operator not in ("In", "NotIn"):
        yield unsupported(f"{field}.operator", operator, ("In", "NotIn"))
    if (name := codes.get("containerName")) is not None and name not in names:
        why = "must be one of the container or initContainer names in the pod template"
        yield invalid(f"{field}.containerName", name, why)
    if not values:
        yield invalid(f"{field}.values", codes.get("values"), "at least one value is required")
    elif len(values) > _CODES_LIMIT:
        yield too_many(f"{field}.values", len(values), _CODES_LIMIT)
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            yield invalid(f"{field}.values[{index}]", value, "must not be 0 for the In operator")
        if value in values[:index]:
            yield duplicate(f"{field}.values[{index}]", value)
    if values != sorted(values):
        yield invalid(f"{field}.values", values, "must be ordered")


def _success(policy: Object, completions: int, field: str) -> Causes:
    rules = policy.get("rules") or []
    if not rules:
        yield required(field, "at least one rules must be specified when the successPolicy is specified")
    if len(rules) > _RULES_LIMIT:
        yield too_many(field, len(rules), _RULES_LIMIT)
    for index, rule in enumerate(rules):
        yield from _success_rule(rule, completions, f"{field}[{index}]")


def _success_rule(rule: Object, completions: int, field: str) -> Causes:
    count, indexes, total = rule.get("succeededCount"), rule.get("succeededIndexes"), 0
    if count is None and indexes is None:
        yield required(field, "at least one of succeededCount or succeededIndexes must be specified")
    if indexes is not None:
        if len(indexes) > _INDEXES_LIMIT:
            yield too_long(f"{field}.succeededIndexes", _INDEXES_LIMIT)
        try:
            total = _count(indexes, completions)
        except ValueError as error:
            yield invalid(f"{field}.succeededIndexes", indexes, f"error parsing succeededIndexes: {error}")
    if count is None:
        return
    where = f"{field}.succeededCount"
    if count < 0:
        yield invalid(where, count, name_formats.NEGATIVE)
    if count > completions:
        why = f"must be less than or equal to {completions} (the number of specified completions)"
        yield invalid(where, count, why)
    if indexes is not None and count > total:
        why = f"must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        yield invalid(where, count, why)


def _count(indexes: str, completions: int) -> int:
    """Return the number of indexes in intervals such as `0-2,5`. Raises `ValueError`."""
    total, last = 0, -1
    for part in indexes.split(",") if indexes else ():
        limits = part.split("-")
        if len(limits) > 2:
            why = "violates the requirement that an index interval can have at most two parts separated by '-'"
            raise ValueError(f'the fragment "{part}" {why}')
        first = _index(limits[0], completions)
        final = _index(limits[-1], completions)
        if len(limits) == 2 and first >= final:
            raise ValueError(f"non-increasing order, previous: {first}, current: {final}")
        if last >= first:
            raise ValueError(f"non-increasing order, previous: {last}, current: {first}")
        total, last = total + final - first + 1, final
    return total


def _index(text: str, completions: int) -> int:
    if not re.fullmatch(r"\+?[0-9]{1,18}", text):
        raise ValueError(f'cannot convert string to integer for index: "{text}"')
    if int(text) >= completions:
        raise ValueError(f'too large index: "{text}"')
    return int(text)


def cron_job(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a cron job, or an update of one."""
    spec = obj.get("spec") or {}
    before = None if old is None else old.get("spec") or {}
    causes = list(schedule(spec, before, "spec"))
    causes += not_negative(spec, "spec", "startingDeadlineSeconds")
    if before is None or before.get("timeZone") != spec.get("timeZone"):
        causes += time_zone(spec.get("timeZone"), "spec.timeZone")
    if (policy := spec.get("concurrencyPolicy", "")) not in ("Allow", "Forbid", "Replace"):
        causes.append(unsupported("spec.concurrencyPolicy", policy, ("Allow", "Forbid", "Replace")))
    made = (spec.get("jobTemplate") or {}).get("spec") or {}
    causes += job_spec(made, "spec.jobTemplate.spec")
    if (selector := made.get("selector")) is not None:
        causes.append(invalid("spec.jobTemplate.spec.selector", selector, "`selector` will be auto-generated"))
    if made.get("manualSelector"):
        field = "spec.jobTemplate.spec.manualSelector"
        causes.append(unsupported(field, True, ("nil", "false"), in_order=True))
    causes += not_negative(spec, "spec", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    if old is None and len(name := obj["metadata"].get("name", "")) > 52:
        causes.append(invalid("metadata.name", name, "must be no more than 52 characters"))
    return causes
