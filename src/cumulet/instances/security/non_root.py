"""Verifies `runAsNonRoot` as the kubelet does (`pkg/kubelet/kuberuntime/security_context.go`)."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.common.ascii import is_digits
from cumulet.instances.security.context import SecurityContext


class NonRootError(Exception):
    """The container would run as root, or could; the message is the kubelet's."""


def verify_non_root(context: SecurityContext, image_user: str, container: str, tags: Mapping[str, str]) -> None:
    """Raise `NonRootError` if the container can run as root.

    `image_user` is `config.User` of the image, `tags` are those of the group.
    """
    if not context.run_as_non_root:
        return
    who = f"container: {container}"
    if {"PodName", "Namespace", "UID"} <= tags.keys():
        who = f'pod: "{tags["PodName"]}_{tags["Namespace"]}({tags["UID"]})", {who}'
    if context.run_as_user is not None:
        if context.run_as_user == 0:
            raise NonRootError(f"container's runAsUser breaks non-root policy ({who})")
        return
    user = image_user.partition(":")[0]
    if not user or (is_digits(user) and int(user) == 0):
        raise NonRootError(f"container has runAsNonRoot and image will run as root ({who})")
    if not is_digits(user):
        raise NonRootError(
            f"container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root ({who})"
        )
