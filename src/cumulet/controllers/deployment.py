"""Deployments: from one replica set to the next without being out of service (`pkg/controller/deployment`)."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import DEPLOYMENTS, REPLICASETS
from cumulet.controllers.controller import Context, Key, Object, controller_of, key_of, owner_reference

HASH_LABEL = "pod-template-hash"
_REVISION = "deployment.kubernetes.io/revision"
_DESIRED = "deployment.kubernetes.io/desired-replicas"
_MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = (
    _REVISION,
    _DESIRED,
    _MAXIMUM,
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision-history",
    "deprecated.deployment.rollback.to",
)
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class DeploymentController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("deployment-controller")
        self._deployments = context.informer(DEPLOYMENTS)
        self._sets = context.informer(REPLICASETS)
        # What was written and not yet seen, so that a look at the informer is not a look at the past.
        self._written: dict[Key, Object] = {}
        self._deployments.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._sets.add_handler(self._set_changed)

    def _set_changed(self, change: str, obj: Object, old: Object | None) -> None:
        written = self._written.get(key_of(obj))
        if written is not None and int(written["metadata"]["resourceVersion"]) <= int(
            obj["metadata"]["resourceVersion"]
        ):
            del self._written[key_of(obj)]
        owner = controller_of(obj)
        if owner is not None and owner["kind"] == "Deployment":
            self.queue.add((obj["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> None:
        """One step of the rollout; the change that it makes brings the next."""
        deployment = self._deployments.get(key[1], key[0])
        if deployment is None:
            return
        sets = self._owned(deployment)
        if deployment["metadata"].get("deletionTimestamp"):
            await self._write_status(deployment, sets, None)
            return
        current = next((item for item in sets if _same_template(item, deployment)), None)
        if deployment["spec"].get("paused"):
            await self._scale_proportionally(deployment, sets)
            await self._write_status(deployment, self._owned(deployment), current)
            return
        current = await self._current(deployment, sets, current)
        others = [item for item in self._owned(deployment) if item["metadata"]["uid"] != current["metadata"]["uid"]]
        if deployment["spec"]["strategy"]["type"] == "Recreate":
            await self._recreate(deployment, current, others)
        else:
            await self._roll(deployment, current, others)
        sets = self._owned(deployment)
        await self._forget_old(deployment, sets)
        current = next(item for item in sets if item["metadata"]["uid"] == current["metadata"]["uid"])
        await self._write_status(deployment, sets, current)

    def _owned(self, deployment: Object) -> list[Object]:
        """The replica sets of a deployment, the oldest first."""
        uid = deployment["metadata"]["uid"]
        items = {**self._sets.items, **self._written}
        found = [
            item
            for item in items.values()
            if item["metadata"]["namespace"] == deployment["metadata"]["namespace"]
            and (owner := controller_of(item)) is not None
            and owner["uid"] == uid
        ]
        return sorted(found, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))

    async def _current(self, deployment: Object, sets: list[Object], current: Object | None) -> Object:
        """The replica set of the current template with the newest revision, made where there is none."""
        newest = max((_revision(item) for item in sets if item is not current), default=0)
        revision = max(newest + 1, _revision(current) if current else 0)
        annotations = {
            **{
                name: value
                for name, value in (deployment["metadata"].get("annotations") or {}).items()
                if name not in _NOT_COPIED
            },
            _REVISION: str(revision),
            _DESIRED: str(deployment["spec"]["replicas"]),
            _MAXIMUM: str(deployment["spec"]["replicas"] + _bounds(deployment)[0]),
        }
        if current is not None:
            if (current["metadata"].get("annotations") or {}) | annotations != current["metadata"].get("annotations"):
                current = await self._patch_set(current, {"metadata": {"annotations": annotations}})
            await self._write_revision(deployment, revision)
            return current
        made = await self._create(deployment, sets, annotations)
        await self._write_revision(deployment, revision)
        return made

    async def _create(self, deployment: Object, sets: list[Object], annotations: dict[str, str]) -> Object:
        metadata, spec = deployment["metadata"], deployment["spec"]
        collisions = (deployment.get("status") or {}).get("collisionCount", 0)
        label = template_hash(spec["template"], collisions)
        template = msgspec.json.decode(msgspec.json.encode(spec["template"]))
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        labels[HASH_LABEL] = label
        surge, _ = _bounds(deployment)
        total = sum(item["spec"].get("replicas", 0) for item in sets)
        replicas = spec["replicas"]
        if spec["strategy"]["type"] == "RollingUpdate":
            replicas = min(replicas, max(0, spec["replicas"] + surge - total))
        elif total:
            replicas = 0
        selector = msgspec.json.decode(msgspec.json.encode(spec["selector"]))
        selector.setdefault("matchLabels", {})[HASH_LABEL] = label
        wanted: Object = {
            "metadata": {
                "name": f"{metadata['name']}-{label}",
                "namespace": metadata["namespace"],
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner_reference(deployment, "apps/v1", "Deployment")],
            },
            "spec": {"replicas": replicas, "selector": selector, "template": template},
        }
        if spec.get("minReadySeconds"):
            wanted["spec"]["minReadySeconds"] = spec["minReadySeconds"]
        try:
            made = await self._client.create(REPLICASETS, wanted)
        except KubernetesError as error:
            if error.reason != "AlreadyExists":
                raise
            made = await self._client.get(REPLICASETS, wanted["metadata"]["name"], metadata["namespace"])
            owner = controller_of(made)
            if owner is None or owner["uid"] != metadata["uid"] or not _same_template(made, deployment):
                # Another template has the same hash: count it, so that the next one is different.
                await self._client.patch(
                    DEPLOYMENTS,
                    metadata["name"],
                    {"status": {"collisionCount": collisions + 1}},
                    metadata["namespace"],
                    subresource="status",
                )
                raise
        self._note(made)
        if replicas:
            name = made["metadata"]["name"]
            self._events.event(
                deployment, "Normal", "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {replicas}"
            )
        return made

    async def _write_revision(self, deployment: Object, revision: int) -> None:
        annotations = deployment["metadata"].get("annotations") or {}
        if annotations.get(_REVISION) != str(revision):
            await self._client.patch(
                DEPLOYMENTS,
                deployment["metadata"]["name"],
                {"metadata": {"annotations": {_REVISION: str(revision)}}},
                deployment["metadata"]["namespace"],
            )

    async def _recreate(self, deployment: Object, current: Object, others: list[Object]) -> None:
        for item in others:
            await self._scale(deployment, item, 0)
        if not any((item.get("status") or {}).get("replicas") for item in others):
            await self._scale(deployment, current, deployment["spec"]["replicas"])

    async def _roll(self, deployment: Object, current: Object, others: list[Object]) -> None:
        """Grow the new within the surge, shrink the old within what may be unavailable."""
        wanted = deployment["spec"]["replicas"]
        surge, unavailable = _bounds(deployment)
        size = current["spec"].get("replicas", 0)
        total = size + sum(item["spec"].get("replicas", 0) for item in others)
        if size > wanted:
            current = await self._scale(deployment, current, wanted)
        elif size < wanted and total < wanted + surge:
            current = await self._scale(deployment, current, min(wanted, size + wanted + surge - total))
        size = current["spec"].get("replicas", 0)
        lacking = size - (current.get("status") or {}).get("availableReplicas", 0)
        total = size + sum(item["spec"].get("replicas", 0) for item in others)
        spare = total - (wanted - unavailable) - max(lacking, 0)
        # Those that do not run are missed by nobody: they go first.
        for item in others:
            replicas = item["spec"].get("replicas", 0)
            sick = replicas - (item.get("status") or {}).get("availableReplicas", 0)
            if spare > 0 and sick > 0:
                step = min(sick, spare, replicas)
                await self._scale(deployment, item, replicas - step)
                spare -= step
        available = sum((item.get("status") or {}).get("availableReplicas", 0) for item in [current, *others])
        spare = available - (wanted - unavailable)
        for item in self._owned(deployment):
            replicas = item["spec"].get("replicas", 0)
            if item["metadata"]["uid"] != current["metadata"]["uid"] and spare > 0 and replicas > 0:
                step = min(replicas, spare)
                await self._scale(deployment, item, replicas - step)
                spare -= step

    async def _scale_proportionally(self, deployment: Object, sets: list[Object]) -> None:
        """A paused deployment still follows `replicas`: all of it goes to the newest set that has any."""
        alive = [item for item in sets if item["spec"].get("replicas")] or sets[-1:]
        total = sum(item["spec"].get("replicas", 0) for item in alive)
        difference = deployment["spec"]["replicas"] - total
        if alive and difference:
            newest = alive[-1]
            await self._scale(deployment, newest, max(newest["spec"].get("replicas", 0) + difference, 0))

    async def _scale(self, deployment: Object, item: Object, replicas: int) -> Object:
        before = item["spec"].get("replicas", 0)
        if before == replicas:
            return item
        annotations = {
            _DESIRED: str(deployment["spec"]["replicas"]),
            _MAXIMUM: str(deployment["spec"]["replicas"] + _bounds(deployment)[0]),
        }
        changed = await self._patch_set(
            item, {"spec": {"replicas": replicas}, "metadata": {"annotations": annotations}}
        )
        word = "up" if replicas > before else "down"
        name = item["metadata"]["name"]
        self._events.event(
            deployment, "Normal", "ScalingReplicaSet", f"Scaled {word} replica set {name} from {before} to {replicas}"
        )
        return changed

    async def _patch_set(self, item: Object, patch: Object) -> Object:
        changed = await self._client.patch(
            REPLICASETS, item["metadata"]["name"], patch, item["metadata"]["namespace"]
        )
        self._note(changed)
        return changed

    def _note(self, item: Object) -> None:
        known = self._sets.items.get(key_of(item))
        if known is None or int(known["metadata"]["resourceVersion"]) < int(item["metadata"]["resourceVersion"]):
            self._written[key_of(item)] = item

    async def _forget_old(self, deployment: Object, sets: list[Object]) -> None:
        limit = deployment["spec"].get("revisionHistoryLimit", 10)
        idle = [
            item
            for item in sets
            if not item["spec"].get("replicas")
            and not (item.get("status") or {}).get("replicas")
            and (item.get("status") or {}).get("observedGeneration", 0) >= item["metadata"].get("generation", 1)
            and not _same_template(item, deployment)
        ]
        for item in sorted(idle, key=_revision)[: max(len(idle) - limit, 0)]:
            try:
                await self._client.delete(REPLICASETS, item["metadata"]["name"], item["metadata"]["namespace"])
            except KubernetesError as error:
                if error.code != 404:
                    raise

    async def _write_status(self, deployment: Object, sets: list[Object], current: Object | None) -> None:
        spec, old = deployment["spec"], deployment.get("status") or {}
        counts = {
            name: sum((item.get("status") or {}).get(name, 0) for item in sets)
            for name in ("replicas", "readyReplicas", "availableReplicas", "terminatingReplicas")
        }
        updated = ((current or {}).get("status") or {}).get("replicas", 0)
        total = sum(item["spec"].get("replicas", 0) for item in sets)
        available = counts["availableReplicas"]
        status: Object = {
            "observedGeneration": deployment["metadata"].get("generation", 0),
            "replicas": counts["replicas"],
            "updatedReplicas": updated,
            "readyReplicas": counts["readyReplicas"],
            "availableReplicas": available,
            "unavailableReplicas": max(total - available, 0),
        }
        status = {name: value for name, value in status.items() if value}
        status["terminatingReplicas"] = counts["terminatingReplicas"]
        if "collisionCount" in old:
            status["collisionCount"] = old["collisionCount"]
        status["conditions"] = _conditions(deployment, status, current, key_of(deployment))
        if status == old:
            return
        try:
            await self._client.update(DEPLOYMENTS, {**deployment, "status": status}, "status")
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise
        deadline = spec.get("progressDeadlineSeconds")
        if deadline and not _complete(deployment, status):
            self.queue.add_after(key_of(deployment), deadline + 1)


def _complete(deployment: Object, status: Object) -> bool:
    wanted = deployment["spec"]["replicas"]
    return bool(
        status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )


def _conditions(deployment: Object, status: Object, current: Object | None, key: Key) -> list[Object]:
    wanted = deployment["spec"]["replicas"]
    _, unavailable = _bounds(deployment)
    old = {item["type"]: item for item in (deployment.get("status") or {}).get("conditions") or ()}
    enough = status.get("availableReplicas", 0) >= wanted - unavailable
    found = [
        _condition(
            old.get("Available"),
            "Available",
            "True" if enough else "False",
            "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        )
    ]
    before = old.get("Progressing")
    name = current["metadata"]["name"] if current else ""
    if deployment["spec"].get("paused"):
        found.append(_condition(before, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused"))
    elif _complete(deployment, status):
        message = f'ReplicaSet "{name}" has successfully progressed.'
        found.append(_condition(before, "Progressing", "True", "NewReplicaSetAvailable", message))
    elif current is not None:
        counted = ("updatedReplicas", "readyReplicas", "availableReplicas", "replicas")
        previous = deployment.get("status") or {}
        moved = (
            any(previous.get(item) != status.get(item) for item in counted)
            or before is None
            or before["reason"] not in ("ReplicaSetUpdated", "NewReplicaSetCreated", "ProgressDeadlineExceeded")
        )
        deadline = deployment["spec"].get("progressDeadlineSeconds")
        late = (
            not moved
            and before is not None
            and deadline
            and (clock.now() - clock.parse(before["lastUpdateTime"])).total_seconds() > deadline
        )
        if late or (before is not None and before["reason"] == "ProgressDeadlineExceeded" and not moved):
            message = f'ReplicaSet "{name}" has timed out progressing.'
            found.append(_condition(before, "Progressing", "False", "ProgressDeadlineExceeded", message))
        else:
            message = f'ReplicaSet "{name}" is progressing.'
            found.append(_condition(before, "Progressing", "True", "ReplicaSetUpdated", message, touch=moved))
    elif before is not None:
        found.append(before)
    return found


def _condition(
    old: Object | None, kind: str, status: str, reason: str, message: str, *, touch: bool = False
) -> Object:
    now = clock.rfc3339()
    if old is not None and (old["status"], old["reason"], old["message"]) == (status, reason, message) and not touch:
        return old
    same = old is not None and old["status"] == status
    return {
        "type": kind,
        "status": status,
        "lastUpdateTime": now,
        "lastTransitionTime": old["lastTransitionTime"] if same and old is not None else now,
        "reason": reason,
        "message": message,
    }


def _same_template(item: Object, deployment: Object) -> bool:
    template = item["spec"]["template"]
    metadata = dict(template.get("metadata") or {})
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != HASH_LABEL}
    mine: Any = {**template, "metadata": {**metadata, "labels": labels}}
    wanted = deployment["spec"]["template"]
    theirs = {
        **wanted,
        "metadata": {**(wanted.get("metadata") or {}), "labels": (wanted.get("metadata") or {}).get("labels") or {}},
    }
    return bool(mine == theirs)


def _revision(item: Object) -> int:
    return int((item["metadata"].get("annotations") or {}).get(_REVISION, "0"))


def _bounds(deployment: Object) -> tuple[int, int]:
    """How many more and how many fewer than wanted there may be (`deploymentutil.ResolveFenceposts`)."""
    strategy = deployment["spec"]["strategy"]
    if strategy["type"] != "RollingUpdate":
        return 0, 0
    wanted = deployment["spec"]["replicas"]
    rolling = strategy["rollingUpdate"]
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


def template_hash(template: Object, collisions: int = 0) -> str:
    """A short name for a pod template: FNV-1a of its JSON, in letters that make no words."""
    value = 0x811C9DC5
    text = msgspec.json.encode(template, order="deterministic") + (str(collisions).encode() if collisions else b"")
    for byte in text:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(value))
