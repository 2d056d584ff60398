"""The status of a deployment: counts, and the conditions that `kubectl rollout status` reads."""

from __future__ import annotations

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError
from cumulet.common.kubernetes.objects import Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet
from cumulet.controllers.conditions import condition_of
from cumulet.controllers.deployment.sets import bounds, total

TIMED_OUT = "ProgressDeadlineExceeded"


def make_status(
    deployment: Deployment, sets: list[ReplicaSet], current: ReplicaSet | None, failure: KubernetesError | None = None
) -> DeploymentStatus:
    """The status of a deployment with these replica sets."""
    parts = [item.get("status") or {} for item in sets]
    available = sum(part.get("availableReplicas", 0) for part in parts)
    status: DeploymentStatus = {}
    if observed := deployment["metadata"].get("generation", 0):
        status["observedGeneration"] = observed
    if replicas := sum(part.get("replicas", 0) for part in parts):
        status["replicas"] = replicas
    if updated := ((current.get("status") or {}) if current is not None else {}).get("replicas", 0):
        status["updatedReplicas"] = updated
    if ready := sum(part.get("readyReplicas", 0) for part in parts):
        status["readyReplicas"] = ready
    if available:
        status["availableReplicas"] = available
    if (unavailable := total(sets) - available) > 0:
        status["unavailableReplicas"] = unavailable
    status["terminatingReplicas"] = sum(part.get("terminatingReplicas", 0) for part in parts)
    if collisions := (deployment.get("status") or {}).get("collisionCount"):
        status["collisionCount"] = collisions
    conditions = [_availability(deployment, available)]
    progress = _progress(deployment, status, current, failure)
    if progress is not None:
        conditions.append(progress)
    failing = _failing(sets, failure)
    if failing is not None:
        failed = condition_of(deployment, "ReplicaFailure")
        conditions.append(_condition(failed, "ReplicaFailure", "True", *failing))
    # Unchanged conditions keep their order, and changed ones follow.
    before = (deployment.get("status") or {}).get("conditions") or []
    kept = [item for item in before if item in conditions]
    status["conditions"] = [*kept, *(item for item in conditions if item not in kept)]
    return status


def is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    """Whether all pods have the current template and are available, and no other pods are left."""
    wanted = deployment["spec"]["replicas"]
    return (
        status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
        and status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    )


def overdue_in(deployment: Deployment, status: DeploymentStatus) -> float | None:
    """The seconds until the progress deadline, negative after it. `None` if no deadline applies."""
    deadline = deployment["spec"].get("progressDeadlineSeconds")
    progress = next((item for item in status.get("conditions") or () if item["type"] == "Progressing"), None)
    if deadline is None or progress is None or is_complete(deployment, status) or deployment["spec"].get("paused"):
        return None
    if progress["reason"] in (TIMED_OUT, "NewReplicaSetAvailable", "DeploymentPaused"):
        return None
    since = clock.parse(progress["lastUpdateTime"])
    return float(deadline - (clock.now() - since).total_seconds())


def _availability(deployment: Deployment, available: int) -> DeploymentCondition:
    enough = available >= deployment["spec"]["replicas"] - bounds(deployment)[1]
    return _condition(
        condition_of(deployment, "Available"),
        "Available",
        "True" if enough else "False",
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        f"Deployment {'has' if enough else 'does not have'} minimum availability.",
    )


def _progress(
    deployment: Deployment,
    status: DeploymentStatus,
    current: ReplicaSet | None,
    failure: KubernetesError | None,
) -> DeploymentCondition | None:
    before = condition_of(deployment, "Progressing")
    if deployment["spec"].get("paused"):
        return _condition(before, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
    if before is not None and before.get("reason") == "DeploymentPaused":
        return _condition(before, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed")
    if deployment["spec"].get("progressDeadlineSeconds") is None:
        return before
    if failure is not None and current is None:
        return _condition(
            before, "Progressing", "False", "ReplicaSetCreateError", f"Failed to create new replica set: {failure}"
        )
    name = current["metadata"]["name"] if current is not None else ""
    subject = f'ReplicaSet "{name}"' if name else f'Deployment "{deployment["metadata"]["name"]}"'
    if current is not None and is_complete(deployment, status):
        message = f"{subject} has successfully progressed."
        return _condition(before, "Progressing", "True", "NewReplicaSetAvailable", message)
    old = deployment.get("status") or {}
    moved = (
        status.get("updatedReplicas", 0) > old.get("updatedReplicas", 0)
        or status.get("readyReplicas", 0) > old.get("readyReplicas", 0)
        or status.get("availableReplicas", 0) > old.get("availableReplicas", 0)
        or _old_pods(status) < _old_pods(old)
    )
    if before is None:
        return _condition(before, "Progressing", "True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
    # Another template starts another rollout with a new deadline.
    restarted = name != "" and name not in before["message"]
    if moved or restarted:
        message = f"{subject} is progressing."
        return _condition(before, "Progressing", "True", "ReplicaSetUpdated", message, touch=True)
    left = overdue_in(deployment, {**status, "conditions": [before]})
    if before["reason"] == TIMED_OUT or (left is not None and left < 0):
        return _condition(before, "Progressing", "False", TIMED_OUT, f"{subject} has timed out progressing.")
    return before


def _old_pods(status: DeploymentStatus) -> int:
    return status.get("replicas", 0) - status.get("updatedReplicas", 0)


def _failing(sets: list[ReplicaSet], failure: KubernetesError | None) -> tuple[str, str] | None:
    for item in reversed(sets):
        condition = condition_of(item, "ReplicaFailure")
        if condition is not None and condition["status"] == "True":
            return condition["reason"], condition["message"]
    return ("FailedCreate", str(failure)) if failure is not None else None


def _condition(
    old: DeploymentCondition | None, kind: str, status: str, reason: str, message: str, *, touch: bool = False
) -> DeploymentCondition:
    """The new condition. An unchanged one is returned as it is, unless `touch` renews its time of update."""
    now = clock.rfc3339()
    if old is not None and (old["status"], old["reason"], old["message"]) == (status, reason, message) and not touch:
        return old
    return {
        "type": kind,
        "status": status,
        "lastUpdateTime": now,
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and old["status"] == status else now,
        "reason": reason,
        "message": message,
    }
