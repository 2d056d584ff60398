"""The patch formats: JSON Patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

An object and a patch come in; a new object goes out. The arguments are unchanged.
"""

from cumulet.kube.patch.json_patch import json_patch
from cumulet.kube.patch.merge import merge_patch
from cumulet.kube.patch.strategic import strategic_merge

__all__ = ["json_patch", "merge_patch", "strategic_merge"]
