"""Why a pod has no container group."""

from __future__ import annotations


class MissingError(Exception):
    """An object that the pod refers to does not exist yet; the message is the kubelet's."""


class UnsupportedError(Exception):
    """The pod uses a feature that no container group supports; the message names it."""


class RejectedError(Exception):
    """The node does not admit the pod, which fails for good; `reason` is the kubelet's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
