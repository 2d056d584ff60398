"""The environment of a pod: its address, fields and resources, secrets and config maps, the links of services."""

from __future__ import annotations

import json
from typing import Any

from tests.cases.path import ThePath, pod

#: Prints the environment as it is, and the arguments.
PRINT = ["sh", "-c", 'cat /proc/self/environ | tr "\\0" "\\n"; for word in "$@"; do echo "arg=$word"; done', "sh"]


def config_map(name: str, data: dict[str, str], **more: Any) -> dict[str, Any]:
    """A config map."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data, **more}


def secret(name: str, strings: dict[str, str], **more: Any) -> dict[str, Any]:
    """A secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": strings, **more}


def field(name: str, path: str) -> dict[str, Any]:
    """A variable that is a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def amount(name: str, resource: str, **more: str) -> dict[str, Any]:
    """A variable that is an amount of resources."""
    return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, **more}}}


def plain(**values: str) -> list[dict[str, Any]]:
    """Variables with values."""
    return [{"name": name, "value": value} for name, value in values.items()]


def printed(path: ThePath, name: str) -> dict[str, str]:
    """The environment that `main` of a pod has printed, from the file of the kernel."""
    found = [line.partition("=") for line in path.output(name, "-c", "main").split("\0")]
    return {key: value for key, _, value in found}


def test_the_address_of_the_pod_is_in_its_environment(path: ThePath) -> None:
    path.apply(config_map("hostile", {"VALUE": "$(POD_IP) $(status.podIP) $$"}))
    main = {
        "name": "main",
        "command": PRINT,
        "args": ["--addr=$(POD_IP)", "$$(POD_IP)", "$(ABSENT) $(HOSTILE)", "$HOME $(open"],
        "env": [
            *plain(EARLY="$(POD_IP)"),
            field("POD_IP", "status.podIP"),
            field("POD_IPS", "status.podIPs"),
            *plain(URL="http://$(POD_IP):80", ESCAPED="$$(POD_IP) $$$$"),
            {"name": "HOSTILE", "valueFrom": {"configMapKeyRef": {"name": "hostile", "key": "VALUE"}}},
            *plain(COPY="$(HOSTILE)", TWICE="first"),
            *plain(TWICE="$(TWICE) last", EMPTY=""),
        ],
        "volumeMounts": [{"name": "e", "mountPath": "/own", "subPathExpr": "at-$(POD_IP)"}],
    }
    look = {"name": "look", "command": ["sh", "-c", "ls /all"], "volumeMounts": [{"name": "e", "mountPath": "/all"}]}
    path.apply(pod("address", [main, look], volumes=[{"name": "e", "emptyDir": {}}], restartPolicy="Never"))
    found = path.output("address", "-c", "main").splitlines()
    address = path.get("address")["status"]["podIP"]
    literal = "$(POD_IP) $(status.podIP) $$"
    for line in [
        f"POD_IP={address}",
        f"POD_IPS={address}",
        "EARLY=$(POD_IP)",
        f"URL=http://{address}:80",
        "ESCAPED=$(POD_IP) $$",
        f"HOSTILE={literal}",
        f"COPY={literal}",
        "TWICE=first last",
        "EMPTY=",
        f"arg=--addr={address}",
        "arg=$(POD_IP)",
        f"arg=$(ABSENT) {literal}",
        "arg=$HOME $(open",
    ]:
        assert line in found
    assert path.kubectl("logs", "address", "-c", "look") == f"at-{address}\n"


def test_every_other_source(path: ThePath) -> None:
    path.apply(
        config_map("values", {"A": "from the map", "odd.name-1": "kept", "B": "b"}, binaryData={"BINARY": "AAE="}),
        secret("hidden", {"A": "from the secret", "S": "$(A)"}),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "own-service"},
            "spec": {"ports": [{"name": "web", "port": 80}], "selector": {"app": "none"}},
        },
    )
    main = {
        "name": "main",
        "command": ["cat", "/proc/self/environ"],
        "envFrom": [
            {"configMapRef": {"name": "values"}},
            {"prefix": "P_", "configMapRef": {"name": "values"}},
            {"secretRef": {"name": "hidden"}},
            {"secretRef": {"name": "never-there", "optional": True}},
        ],
        "env": [
            *plain(B="own"),
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "gone", "optional": True}}},
            *plain(OF_SECRET="<$(A)>"),
            field("NODE", "spec.nodeName"),
            field("ACCOUNT", "spec.serviceAccountName"),
            field("HOST", "status.hostIP"),
            field("LABEL", "metadata.labels['app']"),
            field("NO_LABEL", "metadata.labels['absent']"),
            field("NOTE", "metadata.annotations['example.com/a.b']"),
            amount("CPU", "limits.cpu"),
            amount("MEMORY", "limits.memory", divisor="1Gi"),
            amount("ASKED", "requests.memory"),
            amount("OTHER", "limits.cpu", containerName="other", divisor="1m"),
            amount("OTHER_MEMORY", "requests.memory", containerName="other", divisor="1Mi"),
        ],
    }
    other = {
        "name": "other",
        "command": ["true"],
        "resources": {"limits": {"cpu": "300m"}, "requests": {"cpu": "100m", "memory": "100.5Mi"}},
    }
    linked = pod("sources", [main, other], restartPolicy="Never")
    linked["metadata"]["annotations"] = {"example.com/a.b": "a note"}
    bare = pod(
        "unlinked",
        [{"name": "main", "command": ["cat", "/proc/self/environ"]}],
        restartPolicy="Never",
        enableServiceLinks=False,
    )
    path.apply(linked, bare)
    found = printed(path, "sources")
    wanted = {
        "A": "from the secret",
        "S": "$(A)",
        "B": "own",
        "P_A": "from the map",
        "P_odd.name-1": "kept",
        "OF_SECRET": "<from the secret>",
        "NODE": "virtual-node-aci-linux",
        "ACCOUNT": "default",
        "LABEL": "sources",
        "NO_LABEL": "",
        "NOTE": "a note",
        "CPU": "10000",
        "MEMORY": "4096",
        "ASKED": "0",
        "OTHER": "300",
        "OTHER_MEMORY": "101",
        "OWN_SERVICE_SERVICE_PORT_WEB": "80",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert "BINARY" not in found
    assert found["HOST"] == path.get("sources")["status"]["hostIP"]
    assert found["KUBERNETES_SERVICE_HOST"]
    alone = printed(path, "unlinked")
    assert alone["KUBERNETES_SERVICE_HOST"] == found["KUBERNETES_SERVICE_HOST"]
    assert not [name for name in alone if name.startswith("OWN_SERVICE")]


def waiting(path: ThePath, name: str) -> dict[str, str]:
    """What the first container of a pod waits for, once it has a message."""

    def read() -> dict[str, str]:
        statuses = path.get(name)["status"].get("containerStatuses") or [{}]
        found: dict[str, str] = statuses[0].get("state", {}).get("waiting") or {}
        return found if "message" in found else {}

    return path.until(read, f"message of {name}")


#: What a container lacks: its fields, the message, and what lets it start.
MISSING: dict[str, tuple[dict[str, Any], str, dict[str, Any] | None]] = {
    "no-map": (
        {"envFrom": [{"configMapRef": {"name": "map-1"}}]},
        'configmap "map-1" not found',
        config_map("map-1", {"K": "there"}),
    ),
    "no-key": (
        {"env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "secret-2", "key": "K"}}}]},
        "couldn't find key K in Secret default/secret-2",
        secret("secret-2", {"K": "there"}),
    ),
    "no-text": (
        {"envFrom": [{"secretRef": {"name": "secret-3"}}]},
        "the value of key K in Secret default/secret-3 is not text",
        secret("secret-3", {"K": "there"}),
    ),
    "no-path": (
        {"volumeMounts": [{"name": "e", "mountPath": "/e", "subPathExpr": "$(K)/$(L)"}]},
        "missing value for K, L",
        None,
    ),
}


def test_what_is_missing_holds_a_pod_back(path: ThePath) -> None:
    path.apply(secret("secret-2", {"L": "other"}), secret("secret-3", {}, data={"K": "/w=="}))
    command = {"command": ["sh", "-c", "echo $K"]}
    other = {"name": "other", "command": ["true"]}
    more = {"volumes": [{"name": "e", "emptyDir": {}}], "restartPolicy": "Never"}
    path.apply(
        *(
            pod(name, [{"name": "main", **command, **fields}, other], **more)
            for name, (fields, _, _) in MISSING.items()
        )
    )
    for name, (_, message, _) in MISSING.items():
        found = waiting(path, name)
        assert found["reason"] == "CreateContainerConfigError"
        assert message in found["message"]
        waits = path.get(name)["status"]["containerStatuses"][1]["state"]["waiting"]
        assert waits["reason"] == "ContainerCreating"
        assert f"Error: {message}" in path.events(name, "Failed")
    selector = "involvedObject.name=no-map,reason=Failed"
    events = json.loads(path.kubectl("get", "events", "--field-selector", selector, "-o", "json"))["items"]
    assert events[0]["involvedObject"]["fieldPath"] == "spec.containers{main}"
    path.apply(*(cure for _, _, cure in MISSING.values() if cure is not None))
    for name, (_, _, cure) in MISSING.items():
        if cure is not None:
            assert path.output(name, "-c", "main") == "there\n"
