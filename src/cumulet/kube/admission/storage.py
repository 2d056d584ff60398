"""Plug-in DefaultStorageClass: a claim that names no class gets the cluster's own."""

from __future__ import annotations

from typing import Any

from cumulet.kube.store import Store

Object = dict[str, Any]

_IS_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_CLASSES = "storageclasses.storage.k8s.io"


def complete_claim(store: Store, claim: Object) -> None:
    """Name the default class, the newest where there are several; a claim that names "" wants none."""
    if claim["spec"].get("storageClassName") is not None:
        return
    classes = [stored.load()["metadata"] for stored in store.list(_CLASSES)]
    defaults = [found for found in classes if (found.get("annotations") or {}).get(_IS_DEFAULT) == "true"]
    if defaults:
        newest = max(defaults, key=lambda found: (found["creationTimestamp"], found["name"]))
        claim["spec"]["storageClassName"] = newest["name"]
