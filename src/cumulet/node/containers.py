"""Finds a container's status in the status of its pod."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import ContainerStatus, Pod


def container_status(pod: Pod, name: str) -> ContainerStatus | None:
    """Return the status of a container, an init container or an ephemeral container, or `None`."""
    status = pod.get("status") or {}
    statuses = [
        *(status.get("containerStatuses") or ()),
        *(status.get("initContainerStatuses") or ()),
        *(status.get("ephemeralContainerStatuses") or ()),
    ]
    return next((item for item in statuses if item["name"] == name), None)
