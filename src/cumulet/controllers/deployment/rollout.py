"""Calculates the next size of each replica set of a deployment, from the current sizes alone."""

from __future__ import annotations

from cumulet.common.ascii import is_digits
from cumulet.common.kubernetes.objects import Deployment, ReplicaSet
from cumulet.controllers.deployment.sets import (
    DESIRED,
    MAXIMUM,
    annotations_of,
    available,
    bounds,
    is_rolling,
    size,
    size_annotations,
    total,
)

#: The desired number of pods by the UIDs of replica sets.
Sizes = dict[str, int]


def was_rescaled(deployment: Deployment, sets: list[ReplicaSet]) -> bool:
    """Whether the size of the deployment changed since its sets were sized (`isScalingEvent`)."""
    return any(
        annotations_of(item).get(DESIRED) not in (None, str(deployment["spec"]["replicas"]))
        for item in sets
        if size(item)
    )


def recreate(deployment: Deployment, current: ReplicaSet | None, others: list[ReplicaSet]) -> Sizes:
    """Scale the old sets to zero first. The caller passes `current` once none of the old pods is left."""
    sizes = {_uid(item): 0 for item in others}
    gone = not any(size(item) or (item.get("status") or {}).get("replicas") for item in others)
    if current is not None and gone:
        sizes[_uid(current)] = deployment["spec"]["replicas"]
    return sizes


def roll(deployment: Deployment, current: ReplicaSet, others: list[ReplicaSet]) -> Sizes:
    """Scale the new set up within `maxSurge`, or else the old sets down within `maxUnavailable`."""
    desired = deployment["spec"]["replicas"]
    surge, unavailable = bounds(deployment)
    mine = size(current)
    everyone = total([current, *others])
    if mine > desired:
        return {_uid(current): desired}
    if mine < desired and everyone < desired + surge:
        return {_uid(current): min(desired, mine + desired + surge - everyone)}
    return _shrink(deployment, current, others, desired - unavailable)


def _shrink(deployment: Deployment, current: ReplicaSet, others: list[ReplicaSet], least: int) -> Sizes:
    lacking = size(current) - available(current)
    spare = total([current, *others]) - least - max(lacking, 0)
    if spare <= 0:
        return {}
    sizes: Sizes = {}
    # Remove unavailable pods first, beginning with the oldest sets.
    for item in others:
        step = min(spare, max(size(item) - available(item), 0))
        if step:
            sizes[_uid(item)] = size(item) - step
            spare -= step
    left = sum(available(item) for item in [current, *others]) - least
    for item in others:
        have = sizes.get(_uid(item), size(item))
        step = min(have, left)
        if step > 0:
            sizes[_uid(item)] = have - step
            left -= step
    return sizes


def rescale(deployment: Deployment, current: ReplicaSet | None, sets: list[ReplicaSet]) -> Sizes:
    """Distribute a new size over several sets in proportion (`deploymentutil.GetReplicaSetProportion`)."""
    desired = deployment["spec"]["replicas"]
    active = [item for item in sets if size(item) > 0]
    latest = current if current is not None and current in sets else (sets[-1] if sets else None)
    if len(active) <= 1:
        only = active[0] if active else latest
        return {_uid(only): desired} if only is not None else {}
    if current is not None and size(current) == available(current) == desired:
        return {_uid(item): 0 for item in active if item is not current}
    if not is_rolling(deployment):
        return {}
    allowed = desired + bounds(deployment)[0] if desired else 0
    left = to_add = allowed - total(active)
    # Larger sets first. Of equal sets, the newer one first to scale up, and the older one first to scale down.
    ordered = list(reversed(active)) if to_add > 0 else list(active)
    ordered.sort(key=size, reverse=True)
    sizes: Sizes = {}
    for item in ordered:
        share = _proportion(item, deployment, to_add, left) if to_add else 0
        sizes[_uid(item)] = size(item) + share
        left -= share
    if ordered and left:
        first = ordered[0]
        sizes[_uid(first)] = max(sizes[_uid(first)] + left, 0)
    return sizes


def _proportion(item: ReplicaSet, deployment: Deployment, to_add: int, left: int) -> int:
    if not size(item) or not left:
        return 0
    before = annotations_of(item).get(MAXIMUM, "")
    allowed_before = int(before) if is_digits(before) and int(before) else deployment["spec"]["replicas"]
    allowed = int(size_annotations(deployment)[MAXIMUM])
    share = round(size(item) * allowed / allowed_before) - size(item)
    return min(share, left) if to_add > 0 else max(share, left)


def _uid(item: ReplicaSet) -> str:
    return item["metadata"]["uid"]
