"""Fingerprints of pod specs, to share results between the pods of one template.

Most pods of a cluster come from few templates and differ in one random volume name. A result that depends on the spec
alone is then computed once for all of them.
"""

from __future__ import annotations

import re

import msgspec

from cumulet.common.kubernetes.objects import Object

#: The volume that admission adds for the service account's token (plug-in ServiceAccount), as a JSON string.
_TOKEN_VOLUME = re.compile(rb'"kube-api-access-[a-z0-9]{5}"')
#: A placeholder of the same form: a spec with it in place of its own name is exactly as valid.
STAND_IN = "kube-api-access-00000"
_STAND_IN = f'"{STAND_IN}"'.encode()
#: Bytes. Longer specs are rare, so caching them does not pay.
_LONGEST = 16 * 1024


def likeness(spec: Object) -> bytes | None:
    """Return the spec's JSON with a fixed name for the token volume. Specs with equal results are equivalent.

    `None` for a spec that is too long, has several such names, or has volumes that are named after the pod.
    """
    text = msgspec.json.encode(spec)
    if len(text) > _LONGEST or b'"ephemeral"' in text:
        return None
    names = set(_TOKEN_VOLUME.findall(text))
    if not names:
        return text
    return text.replace(names.pop(), _STAND_IN) if len(names) == 1 else None
