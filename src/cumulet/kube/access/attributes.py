"""The attributes of a request that authorization decides on: of a resource, or of a path that is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Attributes(NamedTuple):
    """A verb, with a resource or with a path that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @classmethod
    def about(cls, verb: str, requested: Mapping[str, str]) -> Attributes:
        """Read the attributes from a mapping with the same names, as access reviews and expressions have."""
        return cls(verb, **{name: requested[name] for name in cls._fields[1:] if name in requested})
