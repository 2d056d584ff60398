"""The prices of regions, and the most that one group can request there (`prices.json`)."""

from __future__ import annotations

import functools
from importlib import resources

import msgspec


class Price(msgspec.Struct, frozen=True, rename="camel"):
    """Prices per hour, in the currency of the sheet."""

    vcpu_hour: float
    gb_hour: float


class Maximum(msgspec.Struct, frozen=True):
    """The most that one group can request: vCPUs and decimal gigabytes."""

    vcpu: float
    gb: float


class Region(msgspec.Struct, frozen=True):
    """A region's prices and limits."""

    regular: Price
    spot: Price
    maximum: Maximum


class Sheet(msgspec.Struct, frozen=True):
    """The prices and limits of all regions."""

    source: str
    currency: str
    regions: dict[str, Region]

    def region(self, name: str) -> Region:
        """Return a region; an unknown one is like the first."""
        return self.regions.get(name) or next(iter(self.regions.values()))


@functools.cache
def sheet() -> Sheet:
    """Return the sheet of this version."""
    return msgspec.json.decode(resources.files(__package__).joinpath("prices.json").read_bytes(), type=Sheet)
