"""The metadata of an object in a write: the fields that the server writes, and those that an update must keep."""

from __future__ import annotations

import uuid

from cumulet.common import clock
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import bad_request, conflict, failure
from cumulet.kube.catalog.resources import Row

_KEPT = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "namespace",
    "name",
    "generateName",
)
#: The metadata that the server itself writes.
WRITTEN_BY_SERVER = (*_KEPT, "resourceVersion", "generation", "managedFields")
_OTHER_NAMESPACE = "the namespace of the provided object does not match the namespace sent on the request"


def start_metadata(row: Row, namespace: str, metadata: Object) -> None:
    """Check and complete the metadata of a new object, in place. Raises `ApiError` 400 and 500."""
    if row.namespaced:
        if metadata.get("namespace", namespace) != namespace:
            raise bad_request(_OTHER_NAMESPACE)
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    if metadata.get("resourceVersion"):
        raise failure("resourceVersion should not be set on objects to be created")
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = clock.rfc3339()
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(key, None)


def carry_over(row: Row, metadata: Object, old: Object) -> None:
    """Check the metadata of an update, and keep the old fields that it may not change, in place.

    Raises `ApiError` 400 and 409.
    """
    if metadata.get("name") != old["name"]:
        if not metadata.get("name"):
            name = old["name"]
            raise bad_request(
                f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({old['name']})"
        )
    if metadata.get("namespace", old.get("namespace")) != old.get("namespace"):
        raise bad_request(_OTHER_NAMESPACE)
    if metadata.get("uid") not in (None, "", old["uid"]):
        raise conflict(
            row.group,
            row.plural,
            metadata["name"],
            f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {old['uid']}",
        )
    for key in _KEPT:
        if key in old:
            metadata[key] = old[key]
        else:
            metadata.pop(key, None)
