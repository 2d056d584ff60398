"""Plug-in DefaultStorageClass: the cluster's default class for a claim that names none."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.store import Store

_IS_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_CLASSES = "storageclasses.storage.k8s.io"


def complete_claim(store: Store, claim: Object) -> None:
    """Set the default class, the newest of several; a claim with the class "" gets none."""
    if claim["spec"].get("storageClassName") is not None:
        return
    classes = [stored.load()["metadata"] for stored in store.list(_CLASSES)]
    defaults = [metadata for metadata in classes if (metadata.get("annotations") or {}).get(_IS_DEFAULT) == "true"]
    if defaults:
        newest = max(defaults, key=lambda metadata: (metadata["creationTimestamp"], metadata["name"]))
        claim["spec"]["storageClassName"] = newest["name"]
