"""The result of an action, and how durations are written in it."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: The name and version that probes and hooks present, as a kubelet of the served version of Kubernetes.
VERSION = "1.36"
#: The most bytes of an output or a body that are kept (`maxReadLength` and `maxRespBodyLength` of `pkg/probe`).
MOST_OUTPUT = 10 * 1024


class Result(NamedTuple):
    """The outcome of an action, and its output. A warning counts as a success."""

    outcome: Literal["success", "warning", "failure"]
    output: str = ""


class ActionError(Exception):
    """The action could not be tried, so that it has no result; the message has the reason."""


def duration(seconds: int) -> str:
    """Return seconds as Go writes a duration: `1s`, `1m30s`, `1h0m0s`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
