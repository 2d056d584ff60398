"""The controller of the driver `disk.csi.azure.com`: makes, grows and deletes the disks of persistent volumes.

It stands in for AKS's `csi-azuredisk-controller` with its external provisioner and resizer. Disks are
`Microsoft.Compute/disks` at the provider, in the resource group of the nodes; that seam is AKS's own, so that `az disk`
shows them. What cannot be provisioned is said in an event of the claim, and tried again when the claim changes.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import aiohttp

from cumulet.common.arm import ArmClient, ArmError
from cumulet.common.ascii import fold
from cumulet.common.config import Config
from cumulet.common.kubernetes import Client, EventRecorder, Informer, KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES
from cumulet.common.kubernetes.objects import (
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeSpec,
    StorageClass,
)
from cumulet.common.kubernetes.quantity import decimal
from cumulet.common.tasks import TaskSet
from cumulet.node.claims import DRIVER, disk_of
from cumulet.node.errors import UnsupportedError

log = logging.getLogger(__name__)

Key = tuple[str, str]

API_VERSION = "2024-03-02"
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
_ZONE = "topology.disk.csi.azure.com/zone"
_GIB = 1024**3
_MOST = 65536
#: The parameters of a class that name the kind of the disk, and those that a folder has no use for.
_SKU = frozenset(("skuname", "storageaccounttype"))
_STORED = frozenset(("kind", "cachingmode", "fstype"))
_WORKERS = 2


class _RefusedError(Exception):
    """A claim cannot be provisioned as it is; the message says why."""


class Disk(NamedTuple):
    """What a disk is to be: its kind, and its size in GiB."""

    sku: str
    gigabytes: int


class Provisioner:
    """The controller. Claims have a namespace in their keys, volumes have none.

    `nodes` are the names of the nodes that have the driver.
    """

    def __init__(
        self,
        client: Client,
        arm: ArmClient,
        config: Config,
        nodes: frozenset[str],
        claims: Informer[PersistentVolumeClaim],
        volumes: Informer[PersistentVolume],
        classes: Informer[StorageClass],
    ) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(first_delay=1.0, ceiling=60.0)
        self.events = EventRecorder(client, f"{DRIVER}_csi-azuredisk-controller")
        self._client = client
        self._arm = arm
        self._location = config.location
        self._disks = f"{config.node_resource_group_id}/providers/Microsoft.Compute/disks"
        self._nodes = nodes
        self._claims = claims
        self._volumes = volumes
        self._classes = classes
        claims.add_handler(lambda change, obj, old: self.queue.add(_key(obj)))
        volumes.add_handler(lambda change, obj, old: self.queue.add(_key(obj)))

    def work(self, tasks: TaskSet) -> None:
        """Start the work. The informers are complete."""
        tasks.start_essential(self.events.run(), "events of disks")
        for _ in range(_WORKERS):
            tasks.start_essential(self.queue.work(self.reconcile), "disk")

    async def reconcile(self, key: Key) -> None:
        """Bring the disk of a claim or volume to what is wanted. Raises what is tried again."""
        if not key[0]:
            volume = self._volumes.get(key[1])
            if volume is not None and _is_to_delete(volume):
                await self._delete(volume)
            return
        claim = self._claims.get(key[1], key[0])
        if claim is None or claim["metadata"].get("deletionTimestamp"):
            return
        name = claim["spec"].get("volumeName")
        if name:
            volume = self._volumes.get(name)
            if volume is not None and _driver_of(volume) == DRIVER:
                await self._grow(claim, volume)
        elif (claim["metadata"].get("annotations") or {}).get(_PROVISIONER) == DRIVER:
            await self._provision(claim)

    async def _provision(self, claim: PersistentVolumeClaim) -> None:
        class_name = claim["spec"].get("storageClassName") or ""
        storage_class = self._classes.get(class_name)
        selected = (claim["metadata"].get("annotations") or {}).get(_SELECTED_NODE)
        if storage_class is None or (selected is None and _waits(storage_class)):
            return
        try:
            disk = _wanted(claim, storage_class, selected, self._nodes)
        except _RefusedError as error:
            message = f'failed to provision volume with StorageClass "{class_name}": {error}'
            self.events.event(claim, "Warning", "ProvisioningFailed", message)
            return
        name = f"pvc-{claim['metadata']['uid']}"
        namespace, own = claim["metadata"]["namespace"], claim["metadata"]["name"]
        message = f'External provisioner is provisioning volume for claim "{namespace}/{own}"'
        self.events.event(claim, "Normal", "Provisioning", message)
        tags = {
            "k8s-azure-created-by": "kubernetes-azure-dd",
            "kubernetes.io-created-for-pv-name": name,
            "kubernetes.io-created-for-pvc-name": own,
            "kubernetes.io-created-for-pvc-namespace": namespace,
        }
        body = {
            "location": self._location,
            "tags": tags,
            "sku": {"name": disk.sku},
            "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": disk.gigabytes},
        }
        path = f"{self._disks}/{name}"
        try:
            await self._arm.call("PUT", path, body, api_version=API_VERSION)
            await self._client.create(PERSISTENTVOLUMES, _volume(name, path, claim, storage_class, disk))
        except (ArmError, KubernetesError, aiohttp.ClientError, TimeoutError) as error:
            if isinstance(error, KubernetesError) and error.reason == "AlreadyExists":
                return
            message = f'failed to provision volume with StorageClass "{class_name}": {error}'
            self.events.event(claim, "Warning", "ProvisioningFailed", message)
            raise
        self.events.event(claim, "Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {name}")

    async def _delete(self, volume: PersistentVolume) -> None:
        """Delete the disk of a released volume, and the volume."""
        name = volume["metadata"]["name"]
        try:
            await self._arm.call("DELETE", disk_of(volume), api_version=API_VERSION)
        except UnsupportedError as error:
            self.events.event(volume, "Warning", "VolumeFailedDelete", str(error))
            return
        except ArmError as error:
            if error.status != 404:
                self.events.event(volume, "Warning", "VolumeFailedDelete", f"{error.code}: {error}")
                raise
        kept = [item for item in volume["metadata"].get("finalizers") or () if item != _FINALIZER]
        metadata = {"resourceVersion": volume["metadata"]["resourceVersion"], "finalizers": kept or None}
        with suppress_stale():
            await self._client.patch(PERSISTENTVOLUMES, name, {"metadata": metadata})
            if not volume["metadata"].get("deletionTimestamp"):
                await self._client.delete(PERSISTENTVOLUMES, name, uid=volume["metadata"]["uid"])

    async def _grow(self, claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
        """Grow the disk of a bound claim that requests more than it has, while containers use it."""
        wanted = _gigabytes(claim)
        if wanted * _GIB <= decimal((claim.get("status") or {}).get("capacity", {}).get("storage", f"{wanted}Gi")):
            return
        name = volume["metadata"]["name"]
        message = f"External resizer is resizing volume {name}"
        self.events.event(claim, "Normal", "Resizing", message)
        capacity = {"storage": f"{wanted}Gi"}
        try:
            body = {"properties": {"diskSizeGB": wanted}}
            await self._arm.call("PATCH", disk_of(volume), body, api_version=API_VERSION)
        except (ArmError, UnsupportedError) as error:
            self.events.event(claim, "Warning", "VolumeResizeFailed", f"resize volume {name} failed: {error}")
            raise
        await self._client.patch(PERSISTENTVOLUMES, name, {"spec": {"capacity": capacity}})
        metadata = claim["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "status": {"capacity": capacity}}
        await self._client.patch(
            PERSISTENTVOLUMECLAIMS, metadata["name"], patch, metadata["namespace"], subresource="status"
        )
        self.events.event(claim, "Normal", "VolumeResizeSuccessful", "Resize volume succeeded")


def _wanted(
    claim: PersistentVolumeClaim, storage_class: StorageClass, selected: str | None, nodes: frozenset[str]
) -> Disk:
    """Return the disk for a claim. Raises `_RefusedError`."""
    if selected is not None and selected not in nodes:
        raise _RefusedError(
            f'virtual node does not support persistent volumes: the node "{selected}" has no driver {DRIVER}; run the pod on '
            "an ordinary node (`cumulet up --node-pool 1`)"
        )
    spec = claim["spec"]
    for mode in spec.get("accessModes") or ():
        if mode != "ReadWriteOnce":
            raise _RefusedError(
                f"Volume capability not supported: access mode {mode}. A disk is attached by one node at a time: use "
                "ReadWriteOnce, or a share of Azure Files in the pod (azureFile)"
            )
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        raise _RefusedError("Volume capability not supported: volume mode Block. Use Filesystem")
    for key in ("dataSource", "dataSourceRef"):
        if key in spec:
            raise _RefusedError(f"{key} is not supported: a disk is created empty")
    sku = "StandardSSD_LRS"
    for name, value in (storage_class.get("parameters") or {}).items():
        if fold(name) in _SKU:
            sku = value
        elif fold(name) not in _STORED:
            raise _RefusedError(f"invalid parameter {name} in storage class")
    gigabytes = _gigabytes(claim)
    if gigabytes > _MOST:
        raise _RefusedError(f"{gigabytes} GiB are more than the {_MOST} GiB of a disk")
    return Disk(sku, gigabytes)


def _gigabytes(claim: PersistentVolumeClaim) -> int:
    """Return the size that a claim requests, in GiB, rounded up."""
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return max(math.ceil(decimal(requests.get("storage", "1Gi")) / _GIB), 1)


def _volume(
    name: str, disk_id: str, claim: PersistentVolumeClaim, storage_class: StorageClass, disk: Disk
) -> PersistentVolume:
    metadata = claim["metadata"]
    attributes = {
        "csi.storage.k8s.io/pv/name": name,
        "csi.storage.k8s.io/pvc/name": metadata["name"],
        "csi.storage.k8s.io/pvc/namespace": metadata["namespace"],
        "requestedsizegib": str(disk.gigabytes),
        "skuname": disk.sku,
    }
    zone = {"matchExpressions": [{"key": _ZONE, "operator": "In", "values": [""]}]}
    spec: PersistentVolumeSpec = {
        "accessModes": claim["spec"].get("accessModes") or [],
        "capacity": {"storage": f"{disk.gigabytes}Gi"},
        "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "csi": {"driver": DRIVER, "volumeHandle": disk_id, "volumeAttributes": attributes},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [zone]}},  # type: ignore[list-item]
        "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
        "storageClassName": storage_class["metadata"]["name"],
        "volumeMode": "Filesystem",
    }
    annotations = {_PROVISIONED_BY: DRIVER}
    return {"metadata": {"name": name, "annotations": annotations, "finalizers": [_FINALIZER]}, "spec": spec}


def _is_to_delete(volume: PersistentVolume) -> bool:
    released = (volume.get("status") or {}).get("phase") == "Released"
    provisioned = (volume["metadata"].get("annotations") or {}).get(_PROVISIONED_BY) == DRIVER
    return released and provisioned and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"


def _driver_of(volume: PersistentVolume) -> str | None:
    return (volume["spec"].get("csi") or {}).get("driver")


def _waits(storage_class: StorageClass) -> bool:
    return storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def _key(obj: PersistentVolume | PersistentVolumeClaim) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
