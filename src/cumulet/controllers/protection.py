"""Protects claims and volumes in use from deletion (`pkg/controller/volume/pvcprotection`, `pvprotection`)."""

from __future__ import annotations

from cumulet.common.kubernetes import Informer, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, T
from cumulet.common.kubernetes.objects import PersistentVolumeClaim, Pod
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.pods import phase_of

_CLAIM = "kubernetes.io/pvc-protection"
_VOLUME = "kubernetes.io/pv-protection"


class VolumeProtectionController:
    """The controller of the protection finalizers. Its keys are those of claims, and of volumes without a namespace."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._claims = context.informer(PERSISTENTVOLUMECLAIMS)
        self._volumes = context.informer(PERSISTENTVOLUMES)
        self._pods = context.informer(PODS)
        self._pods.add_index("claim", _claims_of)
        self._claims.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._volumes.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._claims.add_handler(self._claim_changed)
        self._pods.add_handler(self._pod_changed)

    def _claim_changed(self, change: str, claim: PersistentVolumeClaim, old: PersistentVolumeClaim | None) -> None:
        if volume := claim["spec"].get("volumeName"):
            self.queue.add(("", volume))

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        if change == "DELETED" or phase_of(pod) in ("Succeeded", "Failed"):
            for key in _claims_of(pod):
                self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        """Add the finalizer to a new object, and remove it from a terminating one that is not in use."""
        if key[0]:
            in_use = any(_uses(pod) for pod in self._pods.indexed("claim", key))
            await self._protect(self._claims, key, _CLAIM, in_use=in_use)
        else:
            volume = self._volumes.get(key[1])
            bound = volume is not None and (volume.get("status") or {}).get("phase") == "Bound"
            await self._protect(self._volumes, key, _VOLUME, in_use=bound)

    async def _protect(self, informer: Informer[T], key: Key, name: str, *, in_use: bool) -> None:
        obj = informer.get(key[1], key[0])
        if obj is None:
            return
        finalizers = obj["metadata"].get("finalizers") or []
        terminating = bool(obj["metadata"].get("deletionTimestamp"))
        if not terminating and name not in finalizers:
            desired = [*finalizers, name]
        elif terminating and name in finalizers and not in_use:
            desired = [item for item in finalizers if item != name]
        else:
            return
        version = obj["metadata"]["resourceVersion"]
        patch = {"metadata": {"finalizers": desired or None, "resourceVersion": version}}
        with suppress_stale():
            await self._client.patch(informer.resource, key[1], patch, key[0] or None)


def _uses(pod: Pod) -> bool:
    """Whether a pod uses its claims. An unscheduled pod does not, as no node starts a pod with a terminating claim."""
    return bool(pod["spec"].get("nodeName")) and phase_of(pod) not in ("Succeeded", "Failed")


def _claims_of(pod: Pod) -> list[Key]:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    claims: list[Key] = []
    for volume in pod["spec"].get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            claims.append((namespace, claim["claimName"]))
        elif volume.get("ephemeral"):
            claims.append((namespace, f"{name}-{volume['name']}"))
    return claims
