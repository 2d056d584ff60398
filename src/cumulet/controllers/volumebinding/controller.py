"""The controller: claims have a namespace in their keys, volumes have none."""

from __future__ import annotations

from typing import Literal

from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES
from cumulet.common.kubernetes.objects import (
    Object,
    ObjectReference,
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeClaimStatus,
)
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.volumebinding.matching import best_match, is_for, unsatisfied

_COMPLETED = "pv.kubernetes.io/bind-completed"
_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
#: Names the provisioner to itself; older ones read the second.
_PROVISIONERS = ("volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner")
_NONE = "kubernetes.io/no-provisioner"


class VolumeBindingController:
    """Binds claims and volumes to each other, and keeps their phases."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("persistentvolume-controller")
        self._claims = context.informer(PERSISTENTVOLUMECLAIMS)
        self._volumes = context.informer(PERSISTENTVOLUMES)
        self._classes = context.informer(STORAGECLASSES)
        #: The last message about a claim that is not bound, by uid.
        self._said: dict[str, str] = {}
        self._claims.add_handler(self._claim_changed)
        self._volumes.add_handler(self._volume_changed)
        self._classes.add_handler(lambda change, obj, old: self._retry_unbound())

    # Changes.

    def _claim_changed(self, change: str, claim: PersistentVolumeClaim, old: PersistentVolumeClaim | None) -> None:
        self.queue.add(key_of(claim))
        if change == "DELETED":
            self._said.pop(claim["metadata"]["uid"], None)
        if volume := claim["spec"].get("volumeName"):
            self.queue.add(("", volume))
        elif change == "DELETED":
            for item in self._volumes:
                if is_for(item["spec"].get("claimRef") or {}, claim):
                    self.queue.add(key_of(item))

    def _volume_changed(self, change: str, volume: PersistentVolume, old: PersistentVolume | None) -> None:
        self.queue.add(key_of(volume))
        reference = volume["spec"].get("claimRef")
        if reference is not None:
            self.queue.add((reference.get("namespace", ""), reference.get("name", "")))
        else:
            self._retry_unbound()

    def _retry_unbound(self) -> None:
        for claim in self._claims:
            if not _is_completed(claim):
                self.queue.add(key_of(claim))

    # Reconciliation.

    async def reconcile(self, key: Key) -> None:
        """Bind a claim, or update the phase of a volume. A conflict is retried when the newer object arrives."""
        with suppress_stale():
            if key[0]:
                if (claim := self._claims.get(key[1], key[0])) is not None:
                    await (self._check_bound(claim) if _is_completed(claim) else self._bind_new(claim))
            elif (volume := self._volumes.get(key[1])) is not None:
                await self._check_volume(volume)

    async def _bind_new(self, claim: PersistentVolumeClaim) -> None:
        if claim["metadata"].get("deletionTimestamp"):
            return
        if name := claim["spec"].get("volumeName"):
            await self._bind_named(claim, name)
        elif self._waits_for_pod(claim):
            message = "waiting for first consumer to be created before binding"
            await self._pend(claim, "Normal", "WaitForFirstConsumer", message)
        elif (found := best_match(claim, self._volumes)) is not None:
            await self._bind(claim, found)
        else:
            await self._provision(claim)

    async def _bind_named(self, claim: PersistentVolumeClaim, name: str) -> None:
        """Bind a claim to the volume that its user, or an interrupted binding, has named."""
        volume = self._volumes.get(name)
        if volume is None:
            await self._pend(claim)
        elif (reference := volume["spec"].get("claimRef")) is not None and not is_for(reference, claim):
            message = f'volume "{name}" already bound to a different claim.'
            await self._pend(claim, "Warning", "FailedBinding", message)
        elif reference is None and (why := unsatisfied(claim, volume)) is not None:
            message = f'Cannot bind to requested volume "{name}": {why}'
            await self._pend(claim, "Warning", "VolumeMismatch", message)
        else:
            await self._bind(claim, volume)

    def _waits_for_pod(self, claim: PersistentVolumeClaim) -> bool:
        """Whether a claim is bound when a pod that uses it has a node, and there is none yet."""
        storage_class = self._classes.get(claim["spec"].get("storageClassName") or "")
        waits = storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"
        return waits and _SELECTED_NODE not in (claim["metadata"].get("annotations") or {})

    async def _provision(self, claim: PersistentVolumeClaim) -> None:
        """Let the provisioner of the class create a volume."""
        name = claim["spec"].get("storageClassName") or ""
        storage_class = self._classes.get(name)
        if not name:
            message = "no persistent volumes available for this claim and no storage class is set"
            await self._pend(claim, "Normal", "FailedBinding", message)
            return
        if storage_class is None:
            message = f'storageclass.storage.k8s.io "{name}" not found'
            await self._pend(claim, "Warning", "ProvisioningFailed", message)
            return
        provisioner = storage_class["provisioner"]
        if provisioner == _NONE:
            message = "no persistent volumes available for this claim, and its class has no provisioner"
            await self._pend(claim, "Normal", "FailedBinding", message)
            return
        if (claim["metadata"].get("annotations") or {}).get(_PROVISIONERS[0]) != provisioner:
            await self._annotate(claim, dict.fromkeys(_PROVISIONERS, provisioner))
        message = (
            f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
            "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
            "correctly registered."
        )
        await self._pend(claim, "Normal", "ExternalProvisioning", message)

    async def _bind(self, claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
        """Bind both sides: the volume first, so that no other claim gets it."""
        reference = volume["spec"].get("claimRef")
        if reference is None or reference.get("uid", "") != claim["metadata"]["uid"]:
            annotations = {_BY_CONTROLLER: "yes"} if reference is None else {}
            spec = {"claimRef": _reference(claim)}
            volume = await self._client.patch(
                PERSISTENTVOLUMES,
                volume["metadata"]["name"],
                {"metadata": {**_version(volume), "annotations": annotations}, "spec": spec},
            )
        await self._set_phase(volume, "Bound")
        annotations = {_COMPLETED: "yes"}
        if not claim["spec"].get("volumeName"):
            annotations[_BY_CONTROLLER] = "yes"
        name = volume["metadata"]["name"]
        bound = await self._client.patch(
            PERSISTENTVOLUMECLAIMS,
            claim["metadata"]["name"],
            {"metadata": {**_version(claim), "annotations": annotations}, "spec": {"volumeName": name}},
            claim["metadata"]["namespace"],
        )
        await self._show_bound(bound, volume)

    async def _check_bound(self, claim: PersistentVolumeClaim) -> None:
        """Show whether the volume of a bound claim is there."""
        name = claim["spec"].get("volumeName") or ""
        volume = self._volumes.get(name)
        if volume is None:
            lost = "its PersistentVolume" if name else "reference to PersistentVolume"
            await self._lose(claim, "ClaimLost", f"Bound claim has lost {lost}. Data on the volume is lost!")
        elif (reference := volume["spec"].get("claimRef")) is None or reference.get("uid", "") == "":
            await self._bind(claim, volume)
        elif is_for(reference, claim):
            await self._show_bound(claim, volume)
        else:
            message = "Two claims are bound to the same volume, this one is bound incorrectly"
            await self._lose(claim, "ClaimMisbound", message)

    async def _check_volume(self, volume: PersistentVolume) -> None:
        """Show whether a volume is free, bound or released. Its provisioner deletes a released one, or nobody."""
        reference = volume["spec"].get("claimRef")
        if reference is None or not reference.get("uid"):
            await self._set_phase(volume, "Available")
            return
        claim = self._claims.get(reference.get("name", ""), reference.get("namespace", ""))
        if claim is not None and claim["metadata"]["uid"] == reference["uid"]:
            bound = claim["spec"].get("volumeName")
            if bound == volume["metadata"]["name"]:
                await self._set_phase(volume, "Bound")
            elif bound and _BY_CONTROLLER in (volume["metadata"].get("annotations") or {}):
                await self._free(volume)
            return
        if (volume.get("status") or {}).get("phase") in ("Released", "Failed"):
            return
        if not await self._is_gone(reference):
            return
        await self._set_phase(volume, "Released")
        provisioned = _PROVISIONED_BY in (volume["metadata"].get("annotations") or {})
        if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete" and not provisioned:
            message = f'error getting deleter volume plugin for volume "{volume["metadata"]["name"]}": no provisioner made it'
            self._events.event(volume, "Warning", "VolumeFailedDelete", message)
            await self._set_phase(volume, "Failed")

    async def _is_gone(self, reference: ObjectReference) -> bool:
        """Whether a claim is gone by the API server: a claim that is not in the informer may be newer than that."""
        try:
            found = await self._client.get(
                PERSISTENTVOLUMECLAIMS, reference.get("name", ""), reference.get("namespace", "")
            )
        except KubernetesError as error:
            if error.code != 404:
                raise
            return True
        return found["metadata"]["uid"] != reference.get("uid")

    async def _free(self, volume: PersistentVolume) -> None:
        """Take back a binding whose claim has another volume."""
        patch = {
            "metadata": {**_version(volume), "annotations": {_BY_CONTROLLER: None}},
            "spec": {"claimRef": None},
        }
        await self._client.patch(PERSISTENTVOLUMES, volume["metadata"]["name"], patch)

    # Writes.

    async def _annotate(self, claim: PersistentVolumeClaim, annotations: dict[str, str]) -> None:
        metadata = claim["metadata"]
        patch = {"metadata": {"uid": metadata["uid"], "annotations": annotations}}
        await self._client.patch(PERSISTENTVOLUMECLAIMS, metadata["name"], patch, metadata["namespace"])

    async def _pend(
        self,
        claim: PersistentVolumeClaim,
        kind: Literal["Normal", "Warning"] = "Normal",
        reason: str = "",
        message: str = "",
    ) -> None:
        """Show that a claim is not bound, and record why."""
        uid = claim["metadata"]["uid"]
        if reason and self._said.get(uid) != message:
            self._said[uid] = message
            self._events.event(claim, kind, reason, message)
        await self._show(claim, {"phase": "Pending"})

    async def _lose(self, claim: PersistentVolumeClaim, reason: str, message: str) -> None:
        if (claim.get("status") or {}).get("phase") != "Lost":
            await self._show(claim, {"phase": "Lost"})
            self._events.event(claim, "Warning", reason, message)

    async def _show_bound(self, claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
        status = claim.get("status") or {}
        shown: PersistentVolumeClaimStatus = {
            "phase": "Bound",
            "accessModes": volume["spec"].get("accessModes") or [],
        }
        if status.get("phase") != "Bound":  # later, the resizer has the say
            shown["capacity"] = volume["spec"].get("capacity") or {}
        await self._show(claim, shown)

    async def _show(self, claim: PersistentVolumeClaim, status: PersistentVolumeClaimStatus) -> None:
        known: Object = {**(claim.get("status") or {})}
        if any(known.get(name) != value for name, value in status.items()):
            metadata = claim["metadata"]
            patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
            await self._client.patch(
                PERSISTENTVOLUMECLAIMS, metadata["name"], patch, metadata["namespace"], subresource="status"
            )

    async def _set_phase(self, volume: PersistentVolume, phase: str) -> None:
        if (volume.get("status") or {}).get("phase") != phase:
            metadata = volume["metadata"]
            patch = {"metadata": {"uid": metadata["uid"]}, "status": {"phase": phase}}
            await self._client.patch(PERSISTENTVOLUMES, metadata["name"], patch, subresource="status")


def _is_completed(claim: PersistentVolumeClaim) -> bool:
    return _COMPLETED in (claim["metadata"].get("annotations") or {})


def _version(obj: PersistentVolume | PersistentVolumeClaim) -> Object:
    """Return what makes a patch fail if the object has changed since it was read."""
    return {"resourceVersion": obj["metadata"]["resourceVersion"]}


def _reference(claim: PersistentVolumeClaim) -> ObjectReference:
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }
