"""Fits a layer that was unpacked as if nothing were below to the layers that are.

Most layers fit anywhere. Where only folders differ, a patch is laid over the layer: the same folders with the owners,
modes and attributes that they have below. Where the files would be elsewhere, the layer has to be unpacked again.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path

from cumulet.instances.images.below import Below, Found, copy_status
from cumulet.instances.images.budget import Budget
from cumulet.instances.images.needs import Needs

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Fit(enum.Enum):
    """How a layer fits."""

    AS_IT_IS = enum.auto()
    WITH_PATCH = enum.auto()
    NOT = enum.auto()


def examine(needs: Needs, below: Below) -> tuple[Fit, dict[str, Found | None]]:
    """Return how a layer fits, and the folders of its patch, each with the folder below that it is like.

    `None` stands for the folder of the layer itself. Raises `LayerError`, `OSError`.
    """
    if needs.all:
        return Fit.NOT, {}
    if any((found := below.find(os.fsdecode(path))) and found.is_link for path in needs.passed):
        return Fit.NOT, {}
    folders: dict[str, Found | None] = {}
    for path in map(os.fsdecode, needs.folders):
        found = below.find(path)
        if found is not None and found.is_link:
            return Fit.NOT, {}
        if found is not None and found.is_folder and not found.is_plain_folder:
            folders[path] = found
    for path in map(os.fsdecode, needs.hides):
        # overlayfs lists the whiteouts of a folder that it merges with no other.
        if path and path not in folders and not ((found := below.find(path)) and found.is_folder):
            folders[path] = None
    return (Fit.WITH_PATCH if folders else Fit.AS_IT_IS), folders


def make_patch(folders: dict[str, Found | None], layer: Path, patch: Path, budget: Budget) -> None:
    """Make the patch of a layer in an empty folder. Raises `LayerError`, `OSError`."""
    paths: dict[str, None] = {"": None}
    for path in folders:
        parts = path.split("/")
        paths.update(dict.fromkeys("/".join(parts[:count]) for count in range(1, len(parts) + 1)))
    made = sorted(paths)
    for path in made:
        budget.add_file()
        if path:
            (patch / path).mkdir()
    # The content of a folder is before it, so that the folder keeps its time.
    for path in reversed(made):
        found = folders.get(path) or _of_layer(layer, path)
        descriptor = os.open(patch / path, _FOLDER)
        try:
            copy_status(found, descriptor)
        finally:
            os.close(descriptor)


def _of_layer(layer: Path, path: str) -> Found:
    place = os.fspath(layer / path)
    return Found(place, os.lstat(place))
