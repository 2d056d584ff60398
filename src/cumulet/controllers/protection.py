"""Claims and volumes in use are not deleted under their users (`pkg/controller/volume/pvcprotection`, `pvprotection`)."""

from __future__ import annotations

from cumulet.common.kubernetes import Informer, KubernetesError, Resource, WorkQueue
from cumulet.common.kubernetes.client import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.pods import phase_of

_CLAIM = "kubernetes.io/pvc-protection"
_VOLUME = "kubernetes.io/pv-protection"


class VolumeProtectionController:
    """Keys are those of claims, and of volumes, which have no namespace."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._claims = context.informer(PERSISTENTVOLUMECLAIMS)
        self._volumes = context.informer(PERSISTENTVOLUMES)
        self._pods = context.informer(PODS)
        self._pods.add_index("claim", _claims_of)
        for informer in (self._claims, self._volumes):
            informer.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._claims.add_handler(self._claim_changed)
        self._pods.add_handler(self._pod_changed)

    def _claim_changed(self, change: str, claim: Object, old: Object | None) -> None:
        if volume := claim["spec"].get("volumeName"):
            self.queue.add(("", volume))

    def _pod_changed(self, change: str, pod: Object, old: Object | None) -> None:
        if change == "DELETED" or phase_of(pod) in ("Succeeded", "Failed"):
            for key in _claims_of(pod):
                self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        """Protect what is new, let go what is to be deleted and not in use."""
        if key[0]:
            in_use = any(_uses(pod) for pod in self._pods.indexed("claim", key))
            await self._settle(self._claims, PERSISTENTVOLUMECLAIMS, key, _CLAIM, in_use=in_use)
        else:
            volume = self._volumes.get(key[1])
            bound = volume is not None and (volume.get("status") or {}).get("phase") == "Bound"
            await self._settle(self._volumes, PERSISTENTVOLUMES, key, _VOLUME, in_use=bound)

    async def _settle(self, informer: Informer, resource: Resource, key: Key, name: str, *, in_use: bool) -> None:
        obj = informer.get(key[1], key[0])
        if obj is None:
            return
        finalizers = obj["metadata"].get("finalizers") or []
        going = bool(obj["metadata"].get("deletionTimestamp"))
        if not going and name not in finalizers:
            wanted = [*finalizers, name]
        elif going and name in finalizers and not in_use:
            wanted = [item for item in finalizers if item != name]
        else:
            return
        version = obj["metadata"]["resourceVersion"]
        patch = {"metadata": {"finalizers": wanted or None, "resourceVersion": version}}
        try:
            await self._client.patch(resource, key[1], patch, key[0] or None)
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


def _uses(pod: Object) -> bool:
    """Whether a pod has its claims in use: no node starts one any more whose claim is to be deleted."""
    return bool(pod["spec"].get("nodeName")) and phase_of(pod) not in ("Succeeded", "Failed")


def _claims_of(pod: Object) -> list[Key]:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    found = []
    for volume in pod["spec"].get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            found.append((namespace, claim["claimName"]))
        elif volume.get("ephemeral"):
            found.append((namespace, f"{name}-{volume['name']}"))
    return found
