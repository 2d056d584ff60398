"""Checks a pod before it becomes a container group: every field that it sets is supported, or refused by its path."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Pod
from cumulet.common.kubernetes.support import Refusal, refusals
from cumulet.node.errors import UnsupportedError
from cumulet.node.pod_fields import POD_SPEC
from cumulet.node.security import check_sysctls

#: Characters of a refusal: an event has at most 1,024.
_LONGEST = 1000


def refused_fields(pod: Pod) -> list[Refusal]:
    """Return what of a pod the virtual node does not support, apart from its ephemeral containers, which come later."""
    spec = {name: value for name, value in pod["spec"].items() if name != "ephemeralContainers"}
    return list(refusals(spec, POD_SPEC, "spec"))


def check(pod: Pod) -> None:
    """Raises `UnsupportedError`, which names every field that is not supported and what to do instead.

    Raises `RejectedError` for a sysctl that is not safe.
    """
    check_sysctls(pod)
    found = refused_fields(pod)
    if not found:
        return
    told = "; ".join(str(refusal) for refusal in found)
    if len(told) > _LONGEST:
        told = f"{found[0]}; nor are {', '.join(refusal.path for refusal in found[1:])}"
    raise UnsupportedError(told)
