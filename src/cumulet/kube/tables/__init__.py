"""What `kubectl get` prints: the columns of each resource and the cells of each object (`pkg/printers/internalversion`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from cumulet.kube.tables.cells import CELLS, Object, generic_cells
from cumulet.kube.tables.columns import columns_of

Include = Literal["Metadata", "Object", "None"]


def to_table(
    resource: str, api_version: str, kind: str, objects: list[Object], now: datetime, include: Include
) -> dict[str, Any]:
    """A `meta.k8s.io/v1` Table of objects of one resource, called by its key such as `deployments.apps`."""
    cells = CELLS.get(resource, generic_cells)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": columns_of(resource),
        "rows": [{"cells": cells(obj, now), "object": _included(obj, api_version, kind, include)} for obj in objects],
    }


def _included(obj: Object, api_version: str, kind: str, include: Include) -> Object | None:
    if include == "None":
        return None
    if include == "Object":
        return {"kind": kind, "apiVersion": api_version, **obj}
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
