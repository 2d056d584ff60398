"""Creates the claims of the ephemeral volumes of pods (`pkg/controller/volume/ephemeral`)."""

from __future__ import annotations

from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import PERSISTENTVOLUMECLAIMS, PODS
from cumulet.common.kubernetes.objects import PersistentVolumeClaim, Pod, Volume
from cumulet.controllers.controller import Context, Key, controller_of, key_of, owner_reference
from cumulet.controllers.pods import phase_of


class EphemeralVolumeController:
    """The controller; its keys are those of pods. A claim belongs to its pod, and goes with it."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("ephemeral-volume-controller")
        self._pods = context.informer(PODS)
        self._claims = context.informer(PERSISTENTVOLUMECLAIMS)
        self._pods.add_handler(self._pod_changed)
        self._claims.add_handler(self._claim_changed)

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        if change != "DELETED" and _ephemeral(pod):
            self.queue.add(key_of(pod))

    def _claim_changed(self, change: str, claim: PersistentVolumeClaim, old: PersistentVolumeClaim | None) -> None:
        owner = controller_of(claim)
        if change == "DELETED" and owner is not None and owner["kind"] == "Pod":
            self.queue.add((claim["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> None:
        """Create the missing claims of a pod."""
        pod = self._pods.get(key[1], key[0])
        if pod is None or pod["metadata"].get("deletionTimestamp") or phase_of(pod) in ("Succeeded", "Failed"):
            return
        for volume in _ephemeral(pod):
            await self._ensure(pod, volume)

    async def _ensure(self, pod: Pod, volume: Volume) -> None:
        name, namespace = f"{pod['metadata']['name']}-{volume['name']}", pod["metadata"]["namespace"]
        existing = self._claims.get(name, namespace)
        if existing is not None:
            owner = controller_of(existing)
            if owner is None or owner["uid"] != pod["metadata"]["uid"]:
                message = f"ephemeral volume {volume['name']}: PVC {namespace}/{name} was not created for pod {namespace}/{pod['metadata']['name']}"
                self._events.event(pod, "Warning", "FailedEphemeral", message)
            return
        template = volume["ephemeral"].get("volumeClaimTemplate") or {}
        metadata = {**(template.get("metadata") or {}), "name": name, "namespace": namespace}
        claim: PersistentVolumeClaim = {
            "metadata": {**metadata, "ownerReferences": [owner_reference(pod, PODS)]},  # type: ignore[typeddict-item]
            "spec": template.get("spec") or {},
        }
        try:
            await self._client.create(PERSISTENTVOLUMECLAIMS, claim)
        except KubernetesError as error:
            if error.reason != "AlreadyExists":
                self._events.event(pod, "Warning", "FailedCreate", f"ephemeral volume {volume['name']}: {error}")
                raise


def _ephemeral(pod: Pod) -> list[Volume]:
    return [volume for volume in pod["spec"].get("volumes") or () if volume.get("ephemeral")]
