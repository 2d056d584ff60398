"""Probes, hooks and restarts of a container.

ACI's API has `livenessProbe` and `readinessProbe` with `exec` and `httpGet`. Everything else is an extension with
Kubernetes' names and shapes: `startupProbe`, `lifecycle`, `restartPolicy` and `restartPolicyRules` of a container,
`tcpSocket`, `grpc` and `terminationGracePeriodSeconds` of a probe, `host` of an action, and
`terminationMessagePath` and `terminationMessagePolicy`.
"""

from __future__ import annotations

import signal
from typing import Annotated, Literal

import msgspec

from cumulet.common.ascii import fold, is_digits


class _Base(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_PortNumber = Annotated[int, msgspec.Meta(ge=1, le=65535)]

#: The policy of a container, which has precedence over the group's. An init container with `Always` is a sidecar.
RestartPolicy = Literal["Always", "OnFailure", "Never"]
#: Whether the last lines of the log are the message of a container that failed without one.
MessagePolicy = Literal["File", "FallbackToLogsOnError"]

#: Real-time signals are numbered from here (signal(7)); the C library uses the first two itself.
_FIRST_REAL_TIME, _LAST_REAL_TIME = 34, 64


class ExecAction(_Base):
    """A command in the container; exit code 0 is success."""

    command: list[str] = []


class HttpHeader(_Base):
    """A header of an HTTP request."""

    name: str
    value: str = ""


class HttpGet(_Base):
    """An HTTP request; a status from 200 to 399 is success. The host is by default the group's address."""

    port: _PortNumber
    path: str = "/"
    scheme: Literal["http", "https", "HTTP", "HTTPS"] = "http"
    http_headers: list[HttpHeader] = []
    host: str = ""


class TcpSocket(_Base):
    """A TCP connection; an established one is success. The host is by default the group's address."""

    port: _PortNumber
    host: str = ""


class GrpcAction(_Base):
    """A call of `grpc.health.v1.Health/Check`; the status SERVING is success."""

    port: _PortNumber
    service: str = ""


class SleepAction(_Base):
    """A pause."""

    seconds: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Probe(_Base):
    """A probe of a container, and its schedule.

    `termination_grace_period_seconds` has precedence over the group's when a failed probe ends the container.
    """

    exec: ExecAction | None = None
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: _Seconds = 0
    period_seconds: _Seconds = 10
    failure_threshold: _Count = 3
    success_threshold: _Count = 1
    timeout_seconds: _Seconds = 1
    termination_grace_period_seconds: _Count | None = None


class Handler(_Base):
    """The action of a hook. As in a kubelet, a hook with `tcpSocket` is accepted and always fails."""

    exec: ExecAction | None = None
    http_get: HttpGet | None = None
    sleep: SleepAction | None = None
    tcp_socket: TcpSocket | None = None


class Lifecycle(_Base):
    """The hooks after the start and before the end of a container, and the signal that ends it."""

    post_start: Handler | None = None
    pre_stop: Handler | None = None
    stop_signal: str | None = None


class ExitCodes(_Base):
    """A condition on the exit code of a container."""

    operator: Literal["In", "NotIn"]
    values: list[int] = []

    def match(self, code: int) -> bool:
        """Return whether an exit code meets the condition."""
        return (code in self.values) == (self.operator == "In")


class RestartRule(_Base):
    """Restarts a container with such an exit code, whatever its policy says."""

    action: Literal["Restart"]
    exit_codes: ExitCodes


def signal_number(name: str) -> int | None:
    """Return the number of a signal by its name, with or without `SIG`, or by its number; `None` if there is none.

    Real-time signals are also written `SIGRTMIN+n` and `SIGRTMAX-n`.
    """
    name = name.strip()
    if is_digits(name):
        number = int(name[:3])
        return number if len(name) <= 3 and 1 <= number <= _LAST_REAL_TIME else None
    name = fold(name).removeprefix("sig")
    for base, start, direction in (("rtmin", _FIRST_REAL_TIME, 1), ("rtmax", _LAST_REAL_TIME, -1)):
        if name.startswith(base):
            sign, distance = name[len(base) : len(base) + 1], name[len(base) + 1 :]
            if not sign:
                return start
            if sign != "+-"[direction < 0] or not is_digits(distance) or len(distance) > 2:
                return None
            number = start + direction * int(distance)
            return number if _FIRST_REAL_TIME <= number <= _LAST_REAL_TIME else None
    return next((item.value for item in signal.Signals if fold(item.name) == f"sig{name}"), None)
