"""Changing an object by a patch: JSON Patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

All are functions of plain JSON; what they are given is left as it was.
"""

from cumulet.kube.patch.json_patch import json_patch
from cumulet.kube.patch.merge import merge_patch
from cumulet.kube.patch.strategic import strategic_merge

__all__ = ["json_patch", "merge_patch", "strategic_merge"]
