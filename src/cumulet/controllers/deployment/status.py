"""A deployment's status: counts, and the conditions that `kubectl rollout status` goes by."""

from __future__ import annotations

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError
from cumulet.controllers.controller import Object
from cumulet.controllers.deployment.sets import bounds, total
from cumulet.controllers.pods import condition_of

TIMED_OUT = "ProgressDeadlineExceeded"
_CREATED = ("NewReplicaSetCreated", "FoundNewReplicaSet")


def make_status(
    deployment: Object, sets: list[Object], current: Object | None, failure: KubernetesError | None = None
) -> Object:
    """The status of a deployment whose replica sets are these."""
    counts = {
        name: sum((item.get("status") or {}).get(name, 0) for item in sets)
        for name in ("replicas", "readyReplicas", "availableReplicas", "terminatingReplicas")
    }
    available = counts["availableReplicas"]
    status: Object = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": counts["replicas"],
        "updatedReplicas": ((current or {}).get("status") or {}).get("replicas", 0),
        "readyReplicas": counts["readyReplicas"],
        "availableReplicas": available,
        "unavailableReplicas": max(total(sets) - available, 0),
    }
    status = {name: value for name, value in status.items() if value}
    status["terminatingReplicas"] = counts["terminatingReplicas"]
    if collisions := (deployment.get("status") or {}).get("collisionCount"):
        status["collisionCount"] = collisions
    found = [_availability(deployment, available), _progress(deployment, status, sets, current, failure)]
    failing = _failing(sets, failure)
    if failing is not None:
        failed = condition_of(deployment, "ReplicaFailure")
        found.append(_condition(failed, "ReplicaFailure", "True", *failing))
    # What is new comes at the end.
    before = (deployment.get("status") or {}).get("conditions") or []
    kept = [item for item in before if item in found]
    status["conditions"] = [*kept, *(item for item in found if item and item not in kept)]
    return status


def is_complete(deployment: Object, status: Object) -> bool:
    """All pods are of the current template and available, and no others are left."""
    wanted = deployment["spec"]["replicas"]
    return bool(
        status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
        and status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    )


def overdue_in(deployment: Object, status: Object) -> float | None:
    """Seconds until the progress deadline is over, negative where it is; `None` where none is running."""
    deadline = deployment["spec"].get("progressDeadlineSeconds")
    progress = condition_of({"status": status}, "Progressing")
    if deadline is None or not progress or is_complete(deployment, status) or deployment["spec"].get("paused"):
        return None
    if progress["reason"] in (TIMED_OUT, "NewReplicaSetAvailable", "DeploymentPaused"):
        return None
    since = clock.parse(progress["lastUpdateTime"])
    return float(deadline - (clock.now() - since).total_seconds())


def _availability(deployment: Object, available: int) -> Object:
    enough = available >= deployment["spec"]["replicas"] - bounds(deployment)[1]
    return _condition(
        condition_of(deployment, "Available"),
        "Available",
        "True" if enough else "False",
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        f"Deployment {'has' if enough else 'does not have'} minimum availability.",
    )


def _progress(
    deployment: Object,
    status: Object,
    sets: list[Object],
    current: Object | None,
    failure: KubernetesError | None,
) -> Object:
    before = condition_of(deployment, "Progressing")
    if deployment["spec"].get("paused"):
        return _condition(before, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
    if before.get("reason") == "DeploymentPaused":
        return _condition(before, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed")
    if deployment["spec"].get("progressDeadlineSeconds") is None:
        return before
    if failure is not None and current is None:
        return _condition(
            before, "Progressing", "False", "ReplicaSetCreateError", f"Failed to create new replica set: {failure}"
        )
    name = current["metadata"]["name"] if current is not None else ""
    what = f'ReplicaSet "{name}"' if name else f'Deployment "{deployment["metadata"]["name"]}"'
    if current is not None and is_complete(deployment, status):
        message = f"{what} has successfully progressed."
        return _condition(before, "Progressing", "True", "NewReplicaSetAvailable", message)
    old = deployment.get("status") or {}
    moved = (
        status.get("updatedReplicas", 0) > old.get("updatedReplicas", 0)
        or status.get("readyReplicas", 0) > old.get("readyReplicas", 0)
        or status.get("availableReplicas", 0) > old.get("availableReplicas", 0)
        or _old_pods(status) < _old_pods(old)
    )
    if not before:
        return _condition(before, "Progressing", "True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
    # Another template starts another rollout: it has the whole of the time.
    anew = name != "" and name not in before["message"]
    if moved or anew:
        message = f"{what} is progressing."
        return _condition(before, "Progressing", "True", "ReplicaSetUpdated", message, touch=True)
    late = overdue_in(deployment, {**status, "conditions": [before]})
    if before["reason"] == TIMED_OUT or (late is not None and late < 0):
        return _condition(before, "Progressing", "False", TIMED_OUT, f"{what} has timed out progressing.")
    return before


def _old_pods(status: Object) -> int:
    found: int = status.get("replicas", 0) - status.get("updatedReplicas", 0)
    return found


def _failing(sets: list[Object], failure: KubernetesError | None) -> tuple[str, str] | None:
    for item in reversed(sets):
        condition = condition_of(item, "ReplicaFailure")
        if condition.get("status") == "True":
            return condition["reason"], condition["message"]
    return ("FailedCreate", str(failure)) if failure is not None else None


def _condition(old: Object, kind: str, status: str, reason: str, message: str, *, touch: bool = False) -> Object:
    now = clock.rfc3339()
    if old and (old["status"], old["reason"], old["message"]) == (status, reason, message) and not touch:
        return old
    return {
        "type": kind,
        "status": status,
        "lastUpdateTime": now,
        "lastTransitionTime": old["lastTransitionTime"] if old and old["status"] == status else now,
        "reason": reason,
        "message": message,
    }
