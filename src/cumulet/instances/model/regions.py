"""What a region sells: prices, and the most that a group may ask for there (`prices.json`)."""

from __future__ import annotations

import functools
from importlib import resources

import msgspec


class Price(msgspec.Struct, frozen=True, rename="camel"):
    """By the hour, in the sheet's currency."""

    vcpu_hour: float
    gb_hour: float


class Maximum(msgspec.Struct, frozen=True):
    """The most that one group may ask for: vCPUs and decimal gigabytes."""

    vcpu: float
    gb: float


class Region(msgspec.Struct, frozen=True):
    """A region's prices and limits."""

    regular: Price
    spot: Price
    maximum: Maximum


class Sheet(msgspec.Struct, frozen=True):
    """All regions."""

    source: str
    currency: str
    regions: dict[str, Region]

    def region(self, name: str) -> Region:
        """A region; one that is not on the sheet is like the first."""
        return self.regions.get(name) or next(iter(self.regions.values()))


@functools.cache
def sheet() -> Sheet:
    """The sheet that this version has."""
    return msgspec.json.decode(resources.files(__package__).joinpath("prices.json").read_bytes(), type=Sheet)
