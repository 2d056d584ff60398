"""The error of this folder."""

from __future__ import annotations


class SandboxError(Exception):
    """The kernel refused an operation; the message names the operation and the reason."""
