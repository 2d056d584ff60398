"""How far a pull is: layers and bytes, as its users see it."""

from __future__ import annotations

import time

from cumulet.common.sizes import human_size

#: Seconds between two reports of a pull, and pulls that are reported in one second together.
_INTERVAL, _REPORTS = 1.0, 20


class LayerProgress:
    """The download of one layer, which several pulls may share."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.received = 0
        self.is_done = False

    def finish(self) -> None:
        """Record that the layer is unpacked, or was here already."""
        self.received, self.is_done = self.total, True


class Progress:
    """One running pull of `image`, a reference as its user wrote it."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.began = time.monotonic()
        self._layers: list[LayerProgress] = []

    def add(self, layer: LayerProgress) -> None:
        """Follow a layer."""
        self._layers.append(layer)

    def replace(self, old: LayerProgress, new: LayerProgress) -> None:
        """Follow the download of another pull instead of the own."""
        self._layers = [new if layer is old else layer for layer in self._layers]

    @property
    def layers(self) -> int:
        """The layers of the image, 0 until its manifest is here."""
        return len(self._layers)

    @property
    def layers_done(self) -> int:
        """The layers that are unpacked."""
        return sum(layer.is_done for layer in self._layers)

    @property
    def size(self) -> int:
        """The bytes of all layers in the registry."""
        return sum(layer.total for layer in self._layers)

    @property
    def received(self) -> int:
        """The bytes that are here."""
        return sum(min(layer.received, layer.total) for layer in self._layers)

    def __str__(self) -> str:
        if not self._layers:
            return f'Pulling image "{self.image}": reading its manifest'
        return (
            f'Pulling image "{self.image}": layers {self.layers_done} of {self.layers}, '
            f"{human_size(self.received)} of {human_size(self.size)}"
        )


def report_interval(pulls: int) -> float:
    """Return the seconds between two reports of a pull, while so many run."""
    return max(_INTERVAL, pulls / _REPORTS)
