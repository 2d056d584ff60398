"""The replica sets of a deployment: which is the current one, of which revision, how many pods each should have."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from cumulet.common.ascii import is_digits
from cumulet.controllers.controller import Object
from cumulet.controllers.hashing import name_of

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = (
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
)


def same_template(replica_set: Object, deployment: Object) -> bool:
    """Whether a replica set is of the deployment's template, whatever its hash label."""
    return _plain(replica_set["spec"]["template"]) == _plain(deployment["spec"]["template"])


def _plain(template: Object) -> Object:
    metadata = dict(template.get("metadata") or {})
    labels = {name: value for name, value in (metadata.pop("labels", None) or {}).items() if name != HASH_LABEL}
    metadata.pop("creationTimestamp", None)
    return {**template, "metadata": {**{key: value for key, value in metadata.items() if value}, "labels": labels}}


def current_of(deployment: Object, sets: list[Object]) -> Object | None:
    """The replica set of the deployment's template, the oldest where there are several."""
    return next((item for item in sets if same_template(item, deployment)), None)


def size(replica_set: Object) -> int:
    """`spec.replicas`."""
    found: int = replica_set["spec"].get("replicas", 1)
    return found


def available(replica_set: Object) -> int:
    """`status.availableReplicas`."""
    found: int = (replica_set.get("status") or {}).get("availableReplicas", 0)
    return found


def total(sets: list[Object]) -> int:
    """All that they should have."""
    return sum(size(item) for item in sets)


def annotations_of(obj: Object) -> dict[str, str]:
    """The annotations."""
    return obj["metadata"].get("annotations") or {}


def revision_of(obj: Object) -> int:
    """The revision of a replica set or deployment."""
    text = annotations_of(obj).get(REVISION, "0")
    return int(text) if is_digits(text) else 0


def is_rolling(deployment: Object) -> bool:
    """Its strategy is RollingUpdate."""
    return bool(deployment["spec"]["strategy"].get("type", "RollingUpdate") == "RollingUpdate")


def bounds(deployment: Object) -> tuple[int, int]:
    """How many more and how many fewer than wanted there may be (`deploymentutil.ResolveFenceposts`)."""
    if not is_rolling(deployment):
        return 0, 0
    wanted = deployment["spec"]["replicas"]
    rolling = deployment["spec"]["strategy"].get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), wanted, up=True)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, wanted)


def _share(value: int | str, of: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    part = of * int(value.rstrip("%")) / 100
    return math.ceil(part) if up else math.floor(part)


def size_annotations(deployment: Object) -> dict[str, str]:
    """By which a later look knows for which size of the deployment a set was sized."""
    wanted = deployment["spec"]["replicas"]
    return {DESIRED: str(wanted), MAXIMUM: str(wanted + bounds(deployment)[0])}


def set_annotations(deployment: Object, current: Object | None, revision: int) -> dict[str, str]:
    """The annotations of the current set: the deployment's, its size and its revision, with those it had before."""
    found = {name: value for name, value in annotations_of(deployment).items() if name not in _NOT_COPIED}
    found |= size_annotations(deployment) | {REVISION: str(revision)}
    if current is not None and 0 < revision_of(current) < revision:
        before = annotations_of(current).get(HISTORY)
        found[HISTORY] = f"{before},{revision_of(current)}" if before else str(revision_of(current))
    return found


def make_set(deployment: Object, sets: list[Object], revision: int) -> Object:
    """The replica set of the current template, as large as may be added to the others."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    label = template_hash(spec["template"], (deployment.get("status") or {}).get("collisionCount") or 0)
    template = _copy(spec["template"])
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[HASH_LABEL] = label
    selector = _copy(spec["selector"])
    selector.setdefault("matchLabels", {})[HASH_LABEL] = label
    wanted: Object = {
        "metadata": {
            "name": f"{metadata['name']}-{label}",
            "labels": labels,
            "annotations": set_annotations(deployment, None, revision),
        },
        "spec": {"replicas": first_size(deployment, sets), "selector": selector, "template": template},
    }
    if spec.get("minReadySeconds"):
        wanted["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return wanted


def first_size(deployment: Object, sets: list[Object]) -> int:
    """How many pods a new set gets at once."""
    wanted: int = deployment["spec"]["replicas"]
    if is_rolling(deployment):
        return min(wanted, max(0, wanted + bounds(deployment)[0] - total(sets)))
    return wanted  # the pods of the others are gone before one that recreates has its new set made


def template_hash(template: Object, collisions: int = 0) -> str:
    """The name of a template."""
    return name_of(template, collisions)


def _copy(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))
