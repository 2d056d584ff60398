"""What makes pods: deployments, replica sets, stateful sets, daemon sets, jobs, cron jobs."""

from __future__ import annotations

import re
from typing import Any

from cumulet.kube.schema.selecting import selects
from cumulet.kube.schema.validation.causes import Causes, Object, forbidden, invalid, labels, required, unsupported
from cumulet.kube.schema.validation.placement import label_selector
from cumulet.kube.schema.validation.pods import pod_spec
from cumulet.kube.status import Cause

_PERCENT = re.compile(r"\d{1,9}%")
_STATEFUL_MUTABLE = frozenset(
    (
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    )
)
_STATEFUL_WORDS = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def deployment(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a deployment, or with its change."""
    spec = obj.get("spec") or {}
    causes = workload(obj, old)
    strategy = spec.get("strategy") or {}
    kind = strategy.get("type")
    if kind not in ("Recreate", "RollingUpdate"):
        causes.append(unsupported("spec.strategy.type", kind or "", ("Recreate", "RollingUpdate")))
    elif kind == "Recreate" and "rollingUpdate" in strategy:
        why = "may not be specified when strategy `type` is 'Recreate'"
        causes.append(forbidden("spec.strategy.rollingUpdate", why))
    elif kind == "RollingUpdate":
        causes += _rolling(strategy.get("rollingUpdate") or {}, "spec.strategy.rollingUpdate")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        why = "must be greater than minReadySeconds"
        causes.append(invalid("spec.progressDeadlineSeconds", deadline, why))
    return causes


def stateful_set(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a stateful set, or with its change."""
    spec = obj.get("spec") or {}
    if old is not None:
        before = old.get("spec") or {}
        if any(spec.get(key) != before.get(key) for key in (spec.keys() | before.keys()) - _STATEFUL_MUTABLE):
            return [forbidden("spec", _STATEFUL_WORDS)]
    causes = workload(obj, None, "statefulset")
    causes += _update_strategy(spec)
    if spec.get("podManagementPolicy") not in ("OrderedReady", "Parallel"):
        allowed = ("OrderedReady", "Parallel")
        causes.append(unsupported("spec.podManagementPolicy", spec.get("podManagementPolicy"), allowed))
    return causes


def daemon_set(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a daemon set, or with its change."""
    return workload(obj, old, "daemonset") + _update_strategy(obj.get("spec") or {})


def workload(obj: Object, old: Object | None, word: str = "deployment") -> list[Cause]:
    """What is wrong with a workload of any kind, or with its change."""
    spec = obj.get("spec") or {}
    causes = _not_negative(spec, "spec", ("replicas", "minReadySeconds", "revisionHistoryLimit"))
    selector = spec.get("selector")
    template_labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if not selector:
        causes.append(required("spec.selector"))
    elif found := list(label_selector(selector, "spec.selector")):
        causes += found
    elif not (selector.get("matchLabels") or selector.get("matchExpressions")):
        why = f"empty selector is invalid for {word}"
        causes.append(invalid("spec.selector", selector, why))
    elif not selects(selector, template_labels):
        why = "`selector` does not match template `labels`"
        causes.append(invalid("spec.template.metadata.labels", template_labels, why))
    causes += labels(template_labels, "spec.template.metadata.labels")
    template = (spec.get("template") or {}).get("spec") or {}
    causes += pod_spec(template, "spec.template.spec")
    if template.get("restartPolicy") not in (None, "Always"):
        causes.append(unsupported("spec.template.spec.restartPolicy", template["restartPolicy"], ("Always",)))
    if template.get("activeDeadlineSeconds") is not None:
        why = "activeDeadlineSeconds in ReplicaSet is not Supported"
        causes.append(forbidden("spec.template.spec.activeDeadlineSeconds", why))
    if old is not None and (old.get("spec") or {}).get("selector") != selector:
        causes.append(invalid("spec.selector", selector, "field is immutable"))
    return causes


def job(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a job, or with its change."""
    spec = obj.get("spec") or {}
    causes = list(_job_spec(spec, "spec"))
    if old is not None:
        before = old.get("spec") or {}
        for name in ("completions", "selector", "template", "completionMode"):
            if before.get(name) != spec.get(name) and not (before.get("suspend") and name == "template"):
                causes.append(invalid(f"spec.{name}", spec.get(name), "field is immutable"))
    return causes


def cron_job(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a cron job."""
    spec = obj.get("spec") or {}
    causes = _not_negative(spec, "spec", ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"))
    schedule = spec.get("schedule", "")
    if not schedule:
        causes.append(required("spec.schedule"))
    elif not schedule.startswith("@") and len(schedule.split()) != 5:
        found = len(schedule.split())
        why = f"expected exactly 5 fields, found {found}: {schedule.split()}".replace("'", "").replace(",", "")
        causes.append(invalid("spec.schedule", schedule, why))
    if spec.get("concurrencyPolicy") not in ("Allow", "Forbid", "Replace"):
        allowed = ("Allow", "Forbid", "Replace")
        causes.append(unsupported("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), allowed))
    if len(obj["metadata"].get("name", "")) > 52:
        causes.append(invalid("metadata.name", obj["metadata"]["name"], "must be no more than 52 characters"))
    causes += _job_spec((spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec")
    return causes


def _job_spec(spec: Object, field: str) -> Causes:
    numbers = ("parallelism", "completions", "backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds")
    yield from _not_negative(spec, field, numbers)
    template = (spec.get("template") or {}).get("spec") or {}
    yield from pod_spec(template, f"{field}.template.spec")
    if template.get("restartPolicy") == "Always":
        yield unsupported(f"{field}.template.spec.restartPolicy", "Always", ("OnFailure", "Never"))
    if spec.get("completionMode") not in (None, "Indexed", "NonIndexed"):
        yield unsupported(f"{field}.completionMode", spec["completionMode"], ("Indexed", "NonIndexed"))
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        yield required(f"{field}.completions", "when completion mode is Indexed")


def _not_negative(spec: Object, field: str, names: tuple[str, ...]) -> list[Cause]:
    return [
        invalid(f"{field}.{name}", spec[name], "must be greater than or equal to 0")
        for name in names
        if spec.get(name) is not None and spec[name] < 0
    ]


def _update_strategy(spec: Object) -> list[Cause]:
    kind = (spec.get("updateStrategy") or {}).get("type")
    if kind in ("OnDelete", "RollingUpdate"):
        return []
    return [unsupported("spec.updateStrategy.type", kind or "", ("OnDelete", "RollingUpdate"))]


def _rolling(rolling: Object, field: str) -> Causes:
    zero = {}
    for name in ("maxUnavailable", "maxSurge"):
        value: Any = rolling.get(name, 0)
        if isinstance(value, str):
            if not _PERCENT.fullmatch(value):
                why = "a valid percent string must be a numeric string followed by an ending '%'"
                yield invalid(f"{field}.{name}", value, why)
            elif name == "maxUnavailable" and int(value[:-1]) > 100:
                yield invalid(f"{field}.{name}", value, "must not be greater than 100%")
            zero[name] = value.lstrip("0") == "%"
        elif type(value) is not int:
            yield invalid(f"{field}.{name}", value, "must be an integer or percentage (e.g '5%')")
            zero[name] = False
        else:
            if value < 0:
                yield invalid(f"{field}.{name}", value, "must be greater than or equal to 0")
            zero[name] = value == 0
    if zero["maxUnavailable"] and zero["maxSurge"]:
        value = rolling.get("maxUnavailable", 0)
        yield invalid(f"{field}.maxUnavailable", value, "may not be 0 when `maxSurge` is 0")
