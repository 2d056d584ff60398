"""Validation of container probes and lifecycle handlers."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, forbidden, invalid, required, unsupported

PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_OF_PROBES = ("exec", "httpGet", "tcpSocket", "grpc")
_OF_LIFECYCLE = ("exec", "httpGet", "tcpSocket", "sleep")
_COUNTS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
_SIGNALS = tuple(
    f"SIG{name}"
    for name in (
        *[
            "ABRT",
            "ALRM",
            "BUS",
            "CHLD",
            "CLD",
            "CONT",
            "FPE",
            "HUP",
            "ILL",
            "INT",
            "IO",
            "IOT",
            "KILL",
            "PIPE",
            "POLL",
            "PROF",
            "PWR",
            "QUIT",
            "SEGV",
            "STKFLT",
            "STOP",
            "SYS",
        ],
        *[
            "TERM",
            "TRAP",
            "TSTP",
            "TTIN",
            "TTOU",
            "URG",
            "USR1",
            "USR2",
            "VTALRM",
            "WINCH",
            "XCPU",
            "XFSZ",
            "RTMIN",
            "RTMAX",
        ],
        *(f"RTMIN+{number}" for number in range(1, 16)),
        *(f"RTMAX-{number}" for number in range(1, 15)),
    )
)


def probes(container: Object, grace: int | None, field: str) -> Causes:
    """Validate the probes of a container. `grace` is the pod's termination period in seconds."""
    for kind in PROBES:
        if (probe := container.get(kind)) is None:
            continue
        where = f"{field}.{kind}"
        yield from _handler(probe, _OF_PROBES, grace, where)
        for name in _COUNTS:
            if probe.get(name, 0) < 0:
                yield invalid(f"{where}.{name}", probe[name], name_formats.NEGATIVE)
        seconds = probe.get("terminationGracePeriodSeconds")
        if seconds is not None and seconds <= 0:
            yield invalid(f"{where}.terminationGracePeriodSeconds", seconds, "must be greater than 0")
        if kind != "readinessProbe":
            if probe.get("successThreshold", 0) != 1:
                yield invalid(f"{where}.successThreshold", probe.get("successThreshold", 0), "must be 1")
        elif seconds is not None:
            yield invalid(f"{where}.terminationGracePeriodSeconds", seconds, "must not be set for readinessProbes")


def lifecycle(handlers: Object, grace: int | None, system: str | None, field: str) -> Causes:
    """Validate the start and stop handlers of a container. `grace` is the pod's termination period in seconds."""
    for kind in ("postStart", "preStop"):
        if (hook := handlers.get(kind)) is not None:
            yield from _handler(hook, _OF_LIFECYCLE, grace, f"{field}.{kind}")
    if (signal := handlers.get("stopSignal")) is not None:
        if system is None:
            yield forbidden(f"{field}.stopSignal", "may not be set for containers with empty `spec.os.name`")
        else:
            signals = ("SIGKILL", "SIGTERM") if system == "windows" else _SIGNALS
            if system in ("linux", "windows") and signal not in signals:
                yield unsupported(f"{field}.stopSignal", signal, signals)


def _handler(handler: Object, kinds: tuple[str, ...], grace: int | None, field: str) -> Causes:
    given = [kind for kind in kinds if handler.get(kind) is not None]
    if not given:
        yield required(field, "must specify a handler type")
        return
    yield from _action(given[0], handler[given[0]], grace, f"{field}.{given[0]}")
    for extra in given[1:]:
        yield forbidden(f"{field}.{extra}", "may not specify more than 1 handler type")


def _action(kind: str, action: Object, grace: int | None, field: str) -> Causes:
    match kind:
        case "exec":
            if not action.get("command"):
                yield required(f"{field}.command")
        case "httpGet":
            if not action.get("path"):
                yield required(f"{field}.path")
            yield from port(action.get("port", 0), f"{field}.port")
            if action.get("scheme", "") not in ("HTTP", "HTTPS"):
                yield unsupported(f"{field}.scheme", action.get("scheme", ""), ("HTTP", "HTTPS"))
            for header in action.get("httpHeaders") or ():
                name = header.get("name", "")
                yield from all_invalid(f"{field}.httpHeaders", name, name_formats.header_name(name))
        case "tcpSocket" | "grpc":
            yield from port(action.get("port", 0), f"{field}.port")
        case "sleep":
            seconds = action.get("seconds", 0)
            if grace is not None and not 0 <= seconds <= grace:
                why = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                yield invalid(field, seconds, why)


def port(value: int | str, field: str) -> Causes:
    """Validate a port number or name."""
    if isinstance(value, str):
        return all_invalid(field, value, name_formats.port_name(value))
    return all_invalid(field, value, name_formats.port_number(value))
