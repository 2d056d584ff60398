"""What is asked for, as it is authorised: on a resource, or on a path that is none."""

from __future__ import annotations

from typing import NamedTuple


class Attributes(NamedTuple):
    """See the module."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
