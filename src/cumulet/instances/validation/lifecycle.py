"""Checks of a container's probes, hooks, restarts and termination message."""

from __future__ import annotations

import re

from cumulet.instances.model.arguments import ArgumentsError, check_arguments
from cumulet.instances.model.lifecycle import ExecAction, Handler, HttpGet, Lifecycle, Probe, signal_number
from cumulet.instances.model.properties import ContainerProperties
from cumulet.instances.validation.paths import LONGEST_PATH, is_absolute, is_within, normalized
from cumulet.instances.validation.text import CONTROL, invalid, quoted

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
#: A host name, or an IPv4 or IPv6 address.
_HOST = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_.]{0,252}[A-Za-z0-9_.])?|[0-9A-Fa-f:.]{2,45}")
_HEADERS, _RULES, _CODES = 1000, 20, 255
_LONGEST_SERVICE = 1024
#: Where the runtime allows no mount.
_NO_MESSAGE = ("/proc", "/sys")


def check_lifecycle(properties: ContainerProperties, path: str, *, init: bool) -> None:
    """Raise `ArmError` for a property that is not valid. `init` is whether it is one of an init container."""
    probes = {
        "livenessProbe": properties.liveness_probe,
        "readinessProbe": properties.readiness_probe,
        "startupProbe": properties.startup_probe,
    }
    if init and properties.restart_policy != "Always":
        for name, value in {**probes, "lifecycle": properties.lifecycle}.items():
            if value is not None:
                raise invalid(
                    f"{path}.{name}", f"An init container has {name} only with the restartPolicy Always: remove it."
                )
    for name, probe in probes.items():
        if probe is not None:
            _check_probe(probe, f"{path}.{name}", readiness=name == "readinessProbe")
    if properties.lifecycle is not None:
        _check_hooks(properties.lifecycle, f"{path}.lifecycle")
    _check_restarts(properties, path, init=init)
    where = properties.termination_message_path
    normal = normalized(where)
    if not is_absolute(where) or ":" in where or normal == "/" or is_within(normal, _NO_MESSAGE):
        raise invalid(
            f"{path}.terminationMessagePath",
            f"The terminationMessagePath '{quoted(where)}' is not an absolute path of a file outside /proc and /sys.",
        )


def _check_probe(probe: Probe, path: str, *, readiness: bool) -> None:
    actions = [item for item in (probe.exec, probe.http_get, probe.tcp_socket, probe.grpc) if item is not None]
    if len(actions) != 1:
        raise invalid(path, "A probe must have exactly one of exec, httpGet, tcpSocket and grpc.")
    if not readiness and probe.success_threshold != 1:
        raise invalid(f"{path}.successThreshold", "The successThreshold must be 1, except in a readinessProbe.")
    if readiness and probe.termination_grace_period_seconds is not None:
        raise invalid(
            f"{path}.terminationGracePeriodSeconds",
            "A readinessProbe ends no container: remove its terminationGracePeriodSeconds.",
        )
    if probe.exec is not None:
        _check_command(probe.exec, f"{path}.exec", "probe")
    if probe.http_get is not None:
        _check_page(probe.http_get, f"{path}.httpGet")
    if probe.tcp_socket is not None:
        _check_host(probe.tcp_socket.host, f"{path}.tcpSocket.host")
    if probe.grpc is not None and (
        CONTROL.search(probe.grpc.service) or len(probe.grpc.service.encode()) > _LONGEST_SERVICE
    ):
        raise invalid(f"{path}.grpc.service", f"The service '{quoted(probe.grpc.service)}' of a probe is not valid.")


def _check_hooks(lifecycle: Lifecycle, path: str) -> None:
    for name, hook in (("postStart", lifecycle.post_start), ("preStop", lifecycle.pre_stop)):
        if hook is not None:
            _check_hook(hook, f"{path}.{name}")
    if lifecycle.stop_signal is not None and signal_number(lifecycle.stop_signal) is None:
        raise invalid(
            f"{path}.stopSignal", f"The stopSignal '{quoted(lifecycle.stop_signal)}' is not a signal of Linux."
        )


def _check_hook(hook: Handler, path: str) -> None:
    actions = [item for item in (hook.exec, hook.http_get, hook.sleep, hook.tcp_socket) if item is not None]
    if len(actions) != 1:
        raise invalid(path, "A hook must have exactly one of exec, httpGet, sleep and tcpSocket.")
    if hook.exec is not None:
        _check_command(hook.exec, f"{path}.exec", "hook")
    if hook.http_get is not None:
        _check_page(hook.http_get, f"{path}.httpGet")


def _check_command(action: ExecAction, path: str, owner: str) -> None:
    try:
        check_arguments(action.command)
    except ArgumentsError as error:
        raise invalid(f"{path}.command", f"The command of a {owner} is not valid: {error}.") from None
    if not action.command:
        raise invalid(f"{path}.command", f"The command of a {owner} is empty.")


def _check_page(page: HttpGet, path: str) -> None:
    if CONTROL.search(page.path) or len(page.path) > LONGEST_PATH:
        raise invalid(f"{path}.path", f"The path '{quoted(page.path)}' is not valid.")
    _check_host(page.host, f"{path}.host")
    if len(page.http_headers) > _HEADERS:
        raise invalid(f"{path}.httpHeaders", f"A request has at most {_HEADERS} headers.")
    for number, header in enumerate(page.http_headers):
        if not _HEADER.fullmatch(header.name) or CONTROL.search(header.value) or len(header.value) > LONGEST_PATH:
            raise invalid(f"{path}.httpHeaders[{number}]", f"The header '{quoted(header.name)}' is not valid.")


def _check_host(host: str, path: str) -> None:
    if host and not _HOST.fullmatch(host):
        raise invalid(path, f"The host '{quoted(host)}' is neither a host name nor an address.")


def _check_restarts(properties: ContainerProperties, path: str, *, init: bool) -> None:
    rules = properties.restart_policy_rules
    if rules and properties.restart_policy is None:
        raise invalid(f"{path}.restartPolicyRules", "A container with restartPolicyRules must have a restartPolicy.")
    if rules and init and properties.restart_policy == "Always":
        raise invalid(f"{path}.restartPolicyRules", "A sidecar is always restarted: remove the restartPolicyRules.")
    if len(rules) > _RULES or any(len(rule.exit_codes.values) > _CODES for rule in rules):
        raise invalid(
            f"{path}.restartPolicyRules", f"A container has at most {_RULES} rules with {_CODES} exit codes each."
        )
