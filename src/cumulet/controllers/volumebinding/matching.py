"""Which volume satisfies a claim (`pkg/volume/util` and `component-helpers/storage/volume`, `FindMatchingVolume`)."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from cumulet.common.kubernetes.objects import ObjectReference, PersistentVolume, PersistentVolumeClaim
from cumulet.common.kubernetes.quantity import decimal
from cumulet.common.kubernetes.selection import selects


def best_match(claim: PersistentVolumeClaim, volumes: Iterable[PersistentVolume]) -> PersistentVolume | None:
    """Return the volume that is reserved for a claim, or the smallest free one that satisfies it, or `None`."""
    free: list[PersistentVolume] = []
    for volume in volumes:
        reference = volume["spec"].get("claimRef")
        if reference is not None:
            if is_for(reference, claim) and unsatisfied(claim, volume) is None:
                return volume
        elif _is_free(volume) and unsatisfied(claim, volume) is None and _is_selected(claim, volume):
            free.append(volume)
    return min(free, key=lambda volume: (capacity(volume), volume["metadata"]["name"]), default=None)


def unsatisfied(claim: PersistentVolumeClaim, volume: PersistentVolume) -> str | None:
    """Return why a volume does not satisfy a claim, or `None`."""
    spec, wanted = volume["spec"], claim["spec"]
    if capacity(volume) < requested(claim):
        return "requested PV is too small"
    if (spec.get("storageClassName") or "") != (wanted.get("storageClassName") or ""):
        return "storageClassName does not match"
    if spec.get("volumeMode", "Filesystem") != wanted.get("volumeMode", "Filesystem"):
        return "incompatible volumeMode"
    if not set(wanted.get("accessModes") or ()) <= set(spec.get("accessModes") or ()):
        return "incompatible accessMode"
    return None


def is_for(reference: ObjectReference, claim: PersistentVolumeClaim) -> bool:
    """Return whether a volume's reference is to a claim; one without a uid is to any claim of that name."""
    metadata = claim["metadata"]
    names = (reference.get("namespace"), reference.get("name")) == (metadata["namespace"], metadata["name"])
    return names and reference.get("uid", "") in ("", metadata["uid"])


def capacity(volume: PersistentVolume) -> Decimal:
    """Return the size of a volume in bytes."""
    return decimal((volume["spec"].get("capacity") or {}).get("storage", "0"))


def requested(claim: PersistentVolumeClaim) -> Decimal:
    """Return the size that a claim requests, in bytes."""
    return decimal(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0"))


def _is_free(volume: PersistentVolume) -> bool:
    terminating = volume["metadata"].get("deletionTimestamp")
    return not terminating and (volume.get("status") or {}).get("phase", "Available") in ("Available", "Pending")


def _is_selected(claim: PersistentVolumeClaim, volume: PersistentVolume) -> bool:
    selector = claim["spec"].get("selector")
    return selector is None or selects(selector, volume["metadata"].get("labels") or {})
