"""The cells of volumes, claims and their classes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.tables.common import Cell, Cells, age_of, name_of, spec_of, status_of

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import (
        PersistentVolumeClaimSpec,
        PersistentVolumeClaimStatus,
        PersistentVolumeSpec,
    )

_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: Iterable[str] | None) -> str:
    return ",".join(_MODES.get(mode, mode) for mode in modes or ())


def _claim(obj: Object, now: datetime) -> list[Cell]:
    spec: PersistentVolumeClaimSpec = spec_of(obj)
    status: PersistentVolumeClaimStatus = status_of(obj)
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    return [
        name_of(obj),
        phase,
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "0") if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName", "<unset>"),
        age_of(obj, now),
        spec.get("volumeMode", "<unset>"),
    ]


def _volume(obj: Object, now: datetime) -> list[Cell]:
    spec: PersistentVolumeSpec = spec_of(obj)
    claim = spec.get("claimRef") or {}
    return [
        name_of(obj),
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        status_of(obj).get("phase", ""),
        f"{claim.get('namespace')}/{claim.get('name')}" if claim else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName", "<unset>"),
        status_of(obj).get("reason", ""),
        age_of(obj, now),
        spec.get("volumeMode", "<unset>"),
    ]


def _storage_class(obj: Object, now: datetime) -> list[Cell]:
    name = name_of(obj)
    if (obj["metadata"].get("annotations") or {}).get("storageclass.kubernetes.io/is-default-class") == "true":
        name += " (default)"
    return [
        name,
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", ""),
        obj.get("volumeBindingMode", ""),
        bool(obj.get("allowVolumeExpansion")),
        age_of(obj, now),
    ]


STORAGE: dict[str, Cells] = {
    "persistentvolumeclaims": _claim,
    "persistentvolumes": _volume,
    "storageclasses.storage.k8s.io": _storage_class,
}
