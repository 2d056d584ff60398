"""Puts the layers of an image on each other: each layer in the form that fits those below it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cumulet.common.digests import Digest
from cumulet.instances.images.below import Below, is_opaque
from cumulet.instances.images.budget import Budget
from cumulet.instances.images.layers import NO_LAYERS, Known, Layers, chain_of, patch_for, unpacked_on
from cumulet.instances.images.patches import Fit, examine, make_patch

#: Layers that are remembered to fit.
_FITTING = 10_000


class Layered(NamedTuple):
    """A cached layer of an image."""

    digest: Digest
    known: Known


class Stacks:
    """The stacks of folders that are mounted as the roots of containers."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        #: Layers that fit as they are, with the chain ids of those below.
        self._fitting: set[tuple[Digest, Digest]] = set()

    async def build(
        self,
        image: Sequence[Layered],
        budget: Budget,
        unpack_again: Callable[[int, Below, str], Awaitable[None]],
    ) -> list[Path]:
        """Return the folders of an image, the lowest first.

        `unpack_again` adds a layer, given by its position, in a form that is unpacked over those below it. Raises
        `LayerError`, `OSError`, and what `unpack_again` raises.
        """
        stack: list[Path] = []
        chain: Digest | None = None
        for position, layer in enumerate(image):
            below_id, chain = chain or NO_LAYERS, chain_of(chain, layer.known.diff_id)
            folders = [self._layers.path(layer.digest)]
            if layer.known.needs.is_any and (layer.digest, below_id) not in self._fitting:
                again = unpacked_on(below_id)
                below = Below(stack, budget)
                folders = await asyncio.to_thread(self._fitted, layer, below_id, below, budget)
                if not folders:
                    await unpack_again(position, below, again)
                    folders = [self._layers.path(layer.digest, again)]
            if is_opaque(os.fspath(folders[0])):
                # overlayfs does not look at the roots of layers.
                stack.clear()
            stack += folders
        return stack

    def _fitted(self, layer: Layered, chain: Digest, below: Below, budget: Budget) -> list[Path]:
        """Return the folders of a layer, and make its patch; none if it has to be unpacked again."""
        digest, patch, again = layer.digest, patch_for(chain), unpacked_on(chain)
        if self._layers.find(digest, again) is not None:
            return [self._layers.path(digest, again)]
        folder = self._layers.path(digest)
        if self._layers.find(digest, patch) is not None:
            return [folder, self._layers.path(digest, patch)]
        fit, folders = examine(layer.known.needs, below)
        if fit is Fit.NOT:
            return []
        if fit is Fit.AS_IT_IS:
            if len(self._fitting) >= _FITTING:
                self._fitting.clear()
            self._fitting.add((digest, chain))
            return [folder]
        with self._layers.work_on_thread() as work:
            make_patch(folders, folder, work, budget)
            self._layers.add(digest, Known(layer.known.diff_id, 0), work, patch)
        return [folder, self._layers.path(digest, patch)]
