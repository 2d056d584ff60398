"""Setting of missing fields."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.json_types import Json


def default(target: Object, **values: Json) -> None:
    """Set the fields that are missing."""
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = value
