"""Makes new layers durable, in the background."""

from __future__ import annotations

import asyncio
import logging

from cumulet.instances.images.layers import Layers

log = logging.getLogger(__name__)

#: Seconds after which the kernel itself starts to write what is in memory (`dirty_expire_centisecs`). Earlier, the starting
#: container and the databases of the rooms would wait for the disk. A power cut before costs a second pull.
_DELAY = 30


class Synchronizer:
    """Synchronizes the file system of the layers a while after a layer was added, once for all that are new then."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, unless it is running."""
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while self._layers.has_volatile:
            await asyncio.sleep(_DELAY)
            try:
                await asyncio.to_thread(self._layers.synchronize)
            except OSError:
                log.exception(
                    "new layers cannot be written to disk; they are pulled again after a restart of the machine"
                )
