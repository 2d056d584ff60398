"""Checks a pod before it becomes a container group: every field that it sets is supported, or refused by its path."""

from __future__ import annotations

from cumulet.common.image_reference import parse
from cumulet.common.kubernetes.objects import Pod
from cumulet.common.kubernetes.support import Kind, Refusal, refusals
from cumulet.node import strict_aci
from cumulet.node.aci_schema import published
from cumulet.node.errors import UnsupportedError
from cumulet.node.pod_fields import POD_SPEC
from cumulet.node.resource import ContainerGroup
from cumulet.node.security import check_sysctls

#: Characters of a refusal: an event has at most 1,024.
_LONGEST = 1000


def refused_fields(pod: Pod, table: Kind = POD_SPEC) -> list[Refusal]:
    """Return what of a pod the node does not support, apart from its ephemeral containers, which come later."""
    spec = {name: value for name, value in pod["spec"].items() if name != "ephemeralContainers"}
    return list(refusals(spec, table, "spec"))


def check(pod: Pod, *, strict: bool = False, table: Kind = POD_SPEC) -> None:
    """Check a pod by the table of the node: that of the virtual node, or `ORDINARY_POD_SPEC`. Raises `UnsupportedError`, which names every field that is not supported and what to do instead.

    With `strict`, the fields that Azure's virtual node refuses are named too, in its words. Raises `RejectedError` for a
    sysctl that is not safe.
    """
    check_sysctls(pod)
    told = {path: f"{path}: {words}" for path, words in strict_aci.refusals(pod)} if strict else {}
    for refusal in refused_fields(pod, table):
        if not any(refusal.path.startswith(path) for path in told):
            told[refusal.path] = str(refusal)
    _refuse(told)


def invalid_images(pod: Pod) -> dict[str, str]:
    """Return why the names of images are not valid, in the kubelet's words, by the names of the containers."""
    spec, invalid = pod["spec"], {}
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        try:
            parse(container["image"])
        except ValueError as error:
            invalid[container["name"]] = f'Failed to apply default image tag "{container["image"]}": {error}'
    return invalid


def published_group(group: ContainerGroup) -> ContainerGroup:
    """Return a group as Azure accepts it. Raises `UnsupportedError` for what a pod needs and Azure does not have."""
    reduced, others = published(group)
    told = dict(strict_aci.over_total(reduced["properties"]))
    told = {path: f"{path}: {words}" for path, words in told.items()}
    for path in map(_in_pod, others):
        told[path] = f"{path}: Azure Container Instances has no such property; remove it from the pod"
    _refuse(told)
    return reduced


def _in_pod(path: str) -> str:
    """Return the path in a pod of a property of a group: extensions have the names of Kubernetes."""
    return path.replace(".properties.", ".").replace("properties.", "spec.", 1)


def _refuse(told: dict[str, str]) -> None:
    """Raise `UnsupportedError` with what is told about each path; of too many, only the first has more than its path."""
    if not told:
        return
    message = "; ".join(told.values())
    if len(message) > _LONGEST:
        (_, first), *others = told.items()
        message = f"{first}; nor are {', '.join(path for path, _ in others)}"
    raise UnsupportedError(message)
