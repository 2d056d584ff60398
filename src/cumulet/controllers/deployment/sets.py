"""The replica sets of a deployment: their templates, revisions, annotations and sizes."""

from __future__ import annotations

import copy
import math

from cumulet.common.ascii import is_digits
from cumulet.common.kubernetes.objects import Deployment, Object, PartialObjectMetadata, PodTemplateSpec, ReplicaSet
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


def same_template(replica_set: ReplicaSet, deployment: Deployment) -> bool:
    """Whether a replica set has the template of the deployment, apart from the hash label."""
    return _plain(replica_set["spec"]["template"]) == _plain(deployment["spec"]["template"])


def _plain(template: PodTemplateSpec) -> Object:
    """A template without empty metadata and the hash label, to compare."""
    metadata: Object = {**(template.get("metadata") or {})}
    labels = {name: value for name, value in (metadata.pop("labels", None) or {}).items() if name != HASH_LABEL}
    metadata.pop("creationTimestamp", None)
    return {**template, "metadata": {**{key: value for key, value in metadata.items() if value}, "labels": labels}}


def current_of(deployment: Deployment, sets: list[ReplicaSet]) -> ReplicaSet | None:
    """The replica set with the template of the deployment, the oldest of several."""
    return next((item for item in sets if same_template(item, deployment)), None)


def size(replica_set: ReplicaSet) -> int:
    """`spec.replicas`."""
    return replica_set["spec"].get("replicas", 1)


def available(replica_set: ReplicaSet) -> int:
    """`status.availableReplicas`."""
    return (replica_set.get("status") or {}).get("availableReplicas", 0)


def total(sets: list[ReplicaSet]) -> int:
    """The sum of the sizes."""
    return sum(size(item) for item in sets)


def annotations_of(obj: PartialObjectMetadata) -> dict[str, str]:
    """`metadata.annotations`."""
    return obj["metadata"].get("annotations") or {}


def revision_of(obj: PartialObjectMetadata) -> int:
    """The revision of a replica set or deployment."""
    text = annotations_of(obj).get(REVISION, "0")
    return int(text) if is_digits(text) else 0


def is_rolling(deployment: Deployment) -> bool:
    """Whether the strategy is RollingUpdate."""
    return deployment["spec"]["strategy"].get("type", "RollingUpdate") == "RollingUpdate"


def bounds(deployment: Deployment) -> tuple[int, int]:
    """`maxSurge` and `maxUnavailable` in pods (`deploymentutil.ResolveFenceposts`)."""
    if not is_rolling(deployment):
        return 0, 0
    desired = deployment["spec"]["replicas"]
    rolling = deployment["spec"]["strategy"].get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), desired, up=True)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), desired, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, desired)


def _share(value: int | str, of: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    part = of * int(value.rstrip("%")) / 100
    return math.ceil(part) if up else math.floor(part)


def size_annotations(deployment: Deployment) -> dict[str, str]:
    """The annotations that record the size of the deployment for which a set was sized."""
    desired = deployment["spec"]["replicas"]
    return {DESIRED: str(desired), MAXIMUM: str(desired + bounds(deployment)[0])}


def set_annotations(deployment: Deployment, current: ReplicaSet | None, revision: int) -> dict[str, str]:
    """The annotations of the current set: those of the deployment, its size, and its revisions up to now."""
    annotations = {name: value for name, value in annotations_of(deployment).items() if name not in _NOT_COPIED}
    annotations |= size_annotations(deployment) | {REVISION: str(revision)}
    if current is not None and 0 < revision_of(current) < revision:
        before = annotations_of(current).get(HISTORY)
        annotations[HISTORY] = f"{before},{revision_of(current)}" if before else str(revision_of(current))
    return annotations


def make_set(deployment: Deployment, sets: list[ReplicaSet], revision: int) -> ReplicaSet:
    """The new replica set for the current template, with the size that `maxSurge` allows beside the others."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    label = template_hash(spec["template"], (deployment.get("status") or {}).get("collisionCount") or 0)
    template = copy.deepcopy(spec["template"])
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[HASH_LABEL] = label
    selector = copy.deepcopy(spec["selector"])
    selector.setdefault("matchLabels", {})[HASH_LABEL] = label
    replica_set: ReplicaSet = {
        "metadata": {
            "name": f"{metadata['name']}-{label}",
            "labels": labels,
            "annotations": set_annotations(deployment, None, revision),
        },
        "spec": {"replicas": first_size(deployment, sets), "selector": selector, "template": template},
    }
    if spec.get("minReadySeconds"):
        replica_set["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return replica_set


def first_size(deployment: Deployment, sets: list[ReplicaSet]) -> int:
    """The initial size of a new set."""
    desired = deployment["spec"]["replicas"]
    if is_rolling(deployment):
        return min(desired, max(0, desired + bounds(deployment)[0] - total(sets)))
    return desired  # with the strategy Recreate, the new set is created after the old pods are gone


def template_hash(template: PodTemplateSpec, collisions: int = 0) -> str:
    """The hash of a template, for names and labels."""
    return name_of(template, collisions)
