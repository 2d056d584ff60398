"""Translates the probes, hooks and restart rules of a container; they have Kubernetes' names and shapes in a group."""

from __future__ import annotations

from typing import Literal

from cumulet.common.ascii import fold, is_digits
from cumulet.common.kubernetes.objects import (
    Container,
    HTTPGetAction,
    Lifecycle,
    LifecycleHandler,
    Probe,
    TCPSocketAction,
)
from cumulet.node.environment import Variables
from cumulet.node.errors import UnsupportedError
from cumulet.node.resource import (
    GroupContainerProperties,
    GroupHandler,
    GroupHttpGet,
    GroupLifecycle,
    GroupProbe,
    GroupTcpSocket,
)

_NUMBERS: tuple[
    Literal[
        "initialDelaySeconds",
        "periodSeconds",
        "failureThreshold",
        "successThreshold",
        "timeoutSeconds",
        "terminationGracePeriodSeconds",
    ],
    ...,
] = (
    "initialDelaySeconds",
    "periodSeconds",
    "failureThreshold",
    "successThreshold",
    "timeoutSeconds",
    "terminationGracePeriodSeconds",
)
_PROBES: tuple[Literal["livenessProbe", "readinessProbe", "startupProbe"], ...] = (
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
)
_MESSAGE_PATH = "/dev/termination-log"


def add_lifecycle(container: Container, properties: GroupContainerProperties) -> None:
    """Add what a container has of probes, hooks, restarts and its last message. Raises `UnsupportedError`."""
    for name in _PROBES:
        if probe := container.get(name):
            properties[name] = _probe(container, probe)
    if lifecycle := container.get("lifecycle"):
        properties["lifecycle"] = _lifecycle(container, lifecycle)
    if policy := container.get("restartPolicy"):
        properties["restartPolicy"] = policy
    if rules := container.get("restartPolicyRules"):
        properties["restartPolicyRules"] = rules
    if (path := container.get("terminationMessagePath", _MESSAGE_PATH)) != _MESSAGE_PATH:
        properties["terminationMessagePath"] = path if path.startswith("/") else f"/{path}"
    if (policy := container.get("terminationMessagePolicy", "File")) != "File":
        properties["terminationMessagePolicy"] = policy


def _probe(container: Container, probe: Probe) -> GroupProbe:
    translated: GroupProbe = {}
    for name in _NUMBERS:
        if probe.get(name) is not None:
            translated[name] = probe[name]
    if execution := probe.get("exec"):
        # As in the kubelet, only the values that the container itself has are known here.
        known = Variables(late=False)
        for item in container.get("env") or ():
            known.set(item["name"], item.get("value", ""))
        translated["exec"] = {"command": [known.expand(word) for word in execution.get("command") or []]}
    elif action := probe.get("httpGet"):
        translated["httpGet"] = _page(container, action)
    elif connection := probe.get("tcpSocket"):
        translated["tcpSocket"] = _connection(container, connection)
    elif call := probe.get("grpc"):
        translated["grpc"] = {"port": call["port"], "service": call.get("service") or ""}
    else:
        raise UnsupportedError(
            f"a probe of container {container['name']} has no action; use exec, httpGet, tcpSocket or grpc"
        )
    return translated


def _lifecycle(container: Container, lifecycle: Lifecycle) -> GroupLifecycle:
    translated: GroupLifecycle = {}
    if hook := lifecycle.get("postStart"):
        translated["postStart"] = _hook(container, hook)
    if hook := lifecycle.get("preStop"):
        translated["preStop"] = _hook(container, hook)
    if signal := lifecycle.get("stopSignal"):
        translated["stopSignal"] = signal
    return translated


def _hook(container: Container, hook: LifecycleHandler) -> GroupHandler:
    if execution := hook.get("exec"):
        return {"exec": {"command": execution.get("command") or []}}
    if action := hook.get("httpGet"):
        return {"httpGet": _page(container, action)}
    if pause := hook.get("sleep"):
        return {"sleep": {"seconds": pause["seconds"]}}
    if connection := hook.get("tcpSocket"):
        return {"tcpSocket": _connection(container, connection)}
    raise UnsupportedError(f"a hook of container {container['name']} has no action; use exec, httpGet or sleep")


def _page(container: Container, action: HTTPGetAction) -> GroupHttpGet:
    page: GroupHttpGet = {
        "path": action.get("path") or "/",
        "port": _port(container, action["port"]),
        "scheme": fold(action.get("scheme") or "HTTP"),
        "httpHeaders": action.get("httpHeaders") or [],
    }
    if host := action.get("host"):
        page["host"] = host
    return page


def _connection(container: Container, action: TCPSocketAction) -> GroupTcpSocket:
    connection: GroupTcpSocket = {"port": _port(container, action["port"])}
    if host := action.get("host"):
        connection["host"] = host
    return connection


def _port(container: Container, port: int | str) -> int:
    """Return the number of a port that is named or, as in the kubelet, written as a string."""
    if isinstance(port, int):
        return port
    for item in container.get("ports") or ():
        if item.get("name") == port:
            return item["containerPort"]
    if is_digits(port) and len(port) <= 5:
        return int(port)
    raise UnsupportedError(f"unable to find named port: {port}")
