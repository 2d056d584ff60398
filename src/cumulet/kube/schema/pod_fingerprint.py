"""Pods that one template made: they differ in nothing but a random name, so what holds for the spec of one holds for all.

Most pods of a cluster come from few templates. What is found of a spec alone is worked out once for all that are alike.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

#: The volume that admission adds for the account's token (plug-in ServiceAccount), as a whole string of the JSON.
_TOKEN_VOLUME = re.compile(rb'"kube-api-access-[a-z0-9]{5}"')
#: Of the same form, so that a spec that has it in place of its own is as good or as bad.
STAND_IN = "kube-api-access-00000"
_STAND_IN = f'"{STAND_IN}"'.encode()
#: Longer than this is a spec of which there are few.
_LONGEST = 16 * 1024


def likeness(spec: dict[str, Any]) -> bytes | None:
    """The JSON of a spec with one name for the volume of the token; alike are those of which it is the same.

    `None` where it does not serve: of a spec that is long, that has several such names, or that has volumes which are
    called after the pod.
    """
    text = msgspec.json.encode(spec)
    if len(text) > _LONGEST or b'"ephemeral"' in text:
        return None
    names = set(_TOKEN_VOLUME.findall(text))
    if not names:
        return text
    return text.replace(names.pop(), _STAND_IN) if len(names) == 1 else None
