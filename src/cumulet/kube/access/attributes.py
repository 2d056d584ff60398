"""What is asked for, as it is authorised: on a resource, or on a path that is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Attributes(NamedTuple):
    """See the module."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @classmethod
    def about(cls, verb: str, asked: Mapping[str, Any]) -> Attributes:
        """Of what is asked for by the names of the fields here, as access reviews and expressions do."""
        return cls(verb, **{name: asked[name] for name in cls._fields[1:] if name in asked})
