"""The output of `kubectl get`: the columns of each resource and the cells of each object.

Objects of one resource come in; a `meta.k8s.io/v1` Table goes out (`pkg/printers/internalversion`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.catalog.resources import Row
from cumulet.kube.tables.cells import CELLS, generic_cells
from cumulet.kube.tables.columns import columns_of
from cumulet.kube.tables.common import Cells
from cumulet.kube.tables.other_kinds import RARE

Include = Literal["Metadata", "Object", "None"]


def to_table(row: Row, objects: list[Object], now: datetime, include: Include) -> Object:
    """Return a `meta.k8s.io/v1` Table of objects of one resource."""
    cells = row.custom.cells if row.custom is not None else _cells(row.key)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": row.custom.columns() if row.custom is not None else columns_of(row.key),
        "rows": [
            {"cells": cells(obj, now), "object": _included(obj, row.api_version, row.kind, include)}
            for obj in objects
        ],
    }


def _cells(key: str) -> Cells:
    rare = RARE.get(key)
    if rare is not None:
        return lambda obj, now: [obj["metadata"]["name"], *rare(obj, now)]
    return CELLS.get(key, generic_cells)


def _included(obj: Object, api_version: str, kind: str, include: Include) -> Object | None:
    if include == "None":
        return None
    if include == "Object":
        return {"kind": kind, "apiVersion": api_version, **obj}
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
