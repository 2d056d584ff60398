"""Defaults of persistent volumes, claims, storage classes and CSI drivers."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.defaults.values import default


def claim(obj: Object) -> None:
    claim_spec(obj.setdefault("spec", {}))
    default(obj, status={})
    default(obj["status"], phase="Pending")


def claim_spec(spec: Object) -> None:
    default(spec, volumeMode="Filesystem")


def volume(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    default(spec, persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")
    if (path := spec.get("hostPath")) is not None:
        default(path, type="")
    default(obj, status={})
    default(obj["status"], phase="Pending")


def storage_class(obj: Object) -> None:
    default(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def driver(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    default(
        spec,
        attachRequired=True,
        podInfoOnMount=False,
        storageCapacity=False,
        fsGroupPolicy="ReadWriteOnceWithFSType",
        volumeLifecycleModes=["Persistent"],
        requiresRepublish=False,
        seLinuxMount=False,
    )
