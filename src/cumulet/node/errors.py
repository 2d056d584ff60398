"""Why a pod has no container group."""

from __future__ import annotations


class MissingError(Exception):
    """Something that the pod refers to is not there yet; the message is the kubelet's.

    `container` is the name of the container that waits for it. `again` is the number of seconds after which it is tried
    again; without it, a change of what is missing is awaited.
    """

    def __init__(self, message: str, container: str | None = None, *, again: float | None = None) -> None:
        super().__init__(message)
        self.container = container
        self.again = again


class MountError(MissingError):
    """A volume has no content yet, which holds back the whole pod; the message is the kubelet's, with the volume."""

    def __init__(self, volume: str, cause: MissingError) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {cause}', again=cause.again)


class UnsupportedError(Exception):
    """The pod uses a feature that no container group supports; the message names it."""


class RejectedError(Exception):
    """The node does not admit the pod, which fails for good; `reason` is the kubelet's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
