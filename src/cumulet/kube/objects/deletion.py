"""Deletion: an object is removed at once, or marked, and removed when nothing holds it any more."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cumulet.common import clock
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError, conflict
from cumulet.kube.catalog.resources import Row

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import ObjectMeta

_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


def is_finished(obj: Object) -> bool:
    """Return whether a terminating object has nothing left to wait for."""
    metadata: ObjectMeta = obj["metadata"]
    return (
        bool(metadata.get("deletionTimestamp"))
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not (obj.get("spec") or {}).get("finalizers")
    )


def check_preconditions(row: Row, name: str, obj: Object, options: Object) -> None:
    """Check the preconditions of a deletion. Raises `ApiError` 409."""
    wanted = options.get("preconditions") or {}
    for key, label, done in (
        ("uid", "UID", "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "modified"),
    ):
        if wanted.get(key) and wanted[key] != obj["metadata"][key]:
            why = (
                f"the {label} in the precondition ({wanted[key]}) does not match the {label} in record "
                f"({obj['metadata'][key]}). The object might have been {done}"
            )
            raise conflict(row.group, row.kind, name, why)


def begin_deletion(row: Row, obj: Object, options: Object) -> bool:
    """Mark an object as terminating, in place, and return whether it can be removed at once."""
    metadata: ObjectMeta = obj["metadata"]
    finalizer = _FINALIZERS.get(options.get("propagationPolicy") or "")
    if finalizer and finalizer not in (metadata.get("finalizers") or ()) and not metadata.get("deletionTimestamp"):
        metadata["finalizers"] = [*(metadata.get("finalizers") or ()), finalizer]
    grace = _grace(row, obj, options)
    current = metadata.get("deletionGracePeriodSeconds")
    if not metadata.get("deletionTimestamp") or (current is not None and grace < current):
        if "generation" in metadata and not metadata.get("deletionTimestamp"):
            metadata["generation"] += 1
        metadata["deletionTimestamp"] = clock.rfc3339(clock.now() + timedelta(seconds=grace))
        if row.key != "namespaces":  # a namespace is removed once it is empty
            metadata["deletionGracePeriodSeconds"] = grace
        if row.key == "namespaces":
            obj.setdefault("status", {})["phase"] = "Terminating"
    return is_finished(obj)


def _grace(row: Row, obj: Object, options: Object) -> int:
    """Return a pod's grace period in seconds: 0 where it has no node, or has ended."""
    if row.key != "pods":
        return 0
    spec = obj.get("spec") or {}
    if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    given = options.get("gracePeriodSeconds")
    seconds = spec.get("terminationGracePeriodSeconds", 30) if given is None else given
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise ApiError(400, "BadRequest", "gracePeriodSeconds must be a number")
    return 1 if seconds < 0 else seconds
