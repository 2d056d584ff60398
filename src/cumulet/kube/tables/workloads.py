"""The cells of workloads, autoscalers and disruption budgets."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cumulet.common import clock
from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.duration import age, duration
from cumulet.kube.tables.common import NONE as _NONE
from cumulet.kube.tables.common import Cell, Cells, age_of, name_of, spec_of, status_of
from cumulet.kube.tables.text import join, selector_text

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import (
        CronJobSpec,
        CronJobStatus,
        DeploymentSpec,
        DeploymentStatus,
        JobSpec,
        JobStatus,
        PodDisruptionBudgetSpec,
        ReplicaSetSpec,
        ReplicaSetStatus,
    )


def _template(obj: Object) -> list[Cell]:
    """Return names and images of a workload's containers."""
    containers = ((spec_of(obj).get("template") or {}).get("spec") or {}).get("containers") or []
    return [join(item.get("name", "") for item in containers), join(item.get("image", "") for item in containers)]


def _daemon_set(obj: Object, now: datetime) -> list[Cell]:
    status = status_of(obj)
    counts = [
        status.get(name) or 0
        for name in (
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        )
    ]
    nodes = ((spec_of(obj).get("template") or {}).get("spec") or {}).get("nodeSelector")
    return [
        name_of(obj),
        *counts,
        selector_text(nodes),
        age_of(obj, now),
        *_template(obj),
        selector_text(spec_of(obj).get("selector")),
    ]


def _deployment(obj: Object, now: datetime) -> list[Cell]:
    spec: DeploymentSpec = spec_of(obj)
    status: DeploymentStatus = status_of(obj)
    return [
        name_of(obj),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas") or 0,
        status.get("availableReplicas") or 0,
        age_of(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


def _replica_set(obj: Object, now: datetime) -> list[Cell]:
    spec: ReplicaSetSpec = spec_of(obj)
    status: ReplicaSetStatus = status_of(obj)
    return [
        name_of(obj),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        age_of(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


def _stateful_set(obj: Object, now: datetime) -> list[Cell]:
    ready = f"{status_of(obj).get('readyReplicas') or 0}/{spec_of(obj).get('replicas', 0)}"
    return [name_of(obj), ready, age_of(obj, now), *_template(obj)]


def _autoscaler(obj: Object, now: datetime) -> list[Cell]:
    spec, status = spec_of(obj), status_of(obj)
    target = spec.get("scaleTargetRef") or {}
    return [
        name_of(obj),
        f"{target.get('kind')}/{target.get('name')}",
        _metrics(spec.get("metrics") or [], status.get("currentMetrics") or []),
        str(spec.get("minReplicas", "<unset>")),
        spec.get("maxReplicas") or 0,
        status.get("currentReplicas") or 0,
        age_of(obj, now),
    ]


def _metrics(wanted: list[Object], seen: list[Object]) -> str:
    """Return the first two metrics, and the number of the others."""
    texts = [_metric(metric, seen[index] if index < len(seen) else {}) for index, metric in enumerate(wanted[:2])]
    more = f" + {len(wanted) - 2} more..." if len(wanted) > 2 else ""
    return ", ".join(texts) + more if texts else _NONE


def _metric(metric: Object, seen: Object) -> str:
    kind = metric.get("type") or ""
    key = fold(kind[:1]) + kind[1:]
    of, current = metric.get(key) or {}, (seen.get(key) or {}).get("current") or {}
    target = of.get("target") or {}
    named = key in ("resource", "containerResource")
    average = target.get("averageValue")
    if average is not None:
        text = f"{current.get('averageValue', '<unknown>')}/{average}"
        return f"{of.get('name')}: {text}" if named else text if key == "pods" else f"{text} (avg)"
    if not named:
        return f"{current.get('value', '<unknown>')}/{target.get('value', '0')}"
    have, want = current.get("averageUtilization"), target.get("averageUtilization")
    shown = "<unknown>" if have is None else f"{have}%"
    return f"{of.get('name')}: {shown}/{'<auto>' if want is None else f'{want}%'}"


def _job(obj: Object, now: datetime) -> list[Cell]:
    spec: JobSpec = spec_of(obj)
    status: JobStatus = status_of(obj)
    conditions = {item["type"] for item in status.get("conditions") or () if item.get("status") == "True"}
    text = next(
        (
            name
            for name in ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet")
            if name in conditions
        ),
        "Running",
    )
    if obj["metadata"].get("deletionTimestamp"):
        text = "Terminating"
    wanted = spec.get("completions")
    parallelism = spec.get("parallelism") or 0
    completions = f"{status.get('succeeded') or 0}/" + (
        str(wanted) if wanted is not None else f"1 of {parallelism}" if parallelism > 1 else "1"
    )
    took = ""
    if start := status.get("startTime"):
        end = clock.parse(status["completionTime"]) if status.get("completionTime") else now
        took = duration((end - clock.parse(start)).total_seconds())
    return [
        name_of(obj),
        text,
        completions,
        took,
        age_of(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


def _cron_job(obj: Object, now: datetime) -> list[Cell]:
    spec: CronJobSpec = spec_of(obj)
    status: CronJobStatus = status_of(obj)
    job = {"spec": (spec.get("jobTemplate") or {}).get("spec") or {}}
    last = status.get("lastScheduleTime")
    return [
        name_of(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or _NONE,
        "True" if spec.get("suspend") else "False",
        len(status.get("active") or ()),
        age(last, now) if last else _NONE,
        age_of(obj, now),
        *_template(job),
        selector_text(job["spec"].get("selector")),
    ]


def _revision(obj: Object, now: datetime) -> list[Cell]:
    owner = next((item for item in obj["metadata"].get("ownerReferences") or () if item.get("controller")), None)
    kind = f"{fold(owner['kind'])}.{owner['apiVersion'].partition('/')[0]}/{owner['name']}" if owner else _NONE
    return [name_of(obj), kind, obj.get("revision", 0), age_of(obj, now)]


def _budget(obj: Object, now: datetime) -> list[Cell]:
    spec: PodDisruptionBudgetSpec = spec_of(obj)
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    return [
        name_of(obj),
        "N/A" if least is None else str(least),
        "N/A" if most is None else str(most),
        status_of(obj).get("disruptionsAllowed") or 0,
        age_of(obj, now),
    ]


WORKLOADS: dict[str, Cells] = {
    "replicationcontrollers": _replica_set,
    "controllerrevisions.apps": _revision,
    "daemonsets.apps": _daemon_set,
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "statefulsets.apps": _stateful_set,
    "horizontalpodautoscalers.autoscaling": _autoscaler,
    "cronjobs.batch": _cron_job,
    "jobs.batch": _job,
    "poddisruptionbudgets.policy": _budget,
}
