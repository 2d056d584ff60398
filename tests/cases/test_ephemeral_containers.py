"""Ephemeral containers: added to a running pod, they run once, see a container's processes, and are refused by name."""

from __future__ import annotations

import json
from typing import Any

from tests.cases.path import IMAGE, LOGIN_SERVER, ThePath, pod


def test_ephemeral_containers_run(path: ThePath) -> None:
    volume: dict[str, Any] = {"name": "data", "emptyDir": {}}
    mount = {"name": "data", "mountPath": "/data"}
    main = {"name": "main", "command": ["sh", "-c", "echo inside >/tmp/x; echo stored >/data/y; exec sleep 1000"]}
    path.apply(
        pod("debugged", [{**main, "volumeMounts": [mount]}], volumes=[volume]),
        pod("debugged-brief", [{"name": "main", "command": ["sh", "-c", "sleep 6"]}], restartPolicy="Never"),
    )
    path.wait("pod/debugged", "condition=Ready")
    path.wait("pod/debugged-brief", "condition=Ready")

    look = ("--target=main", "--profile=general", "-c", "look", "-i")
    seen = path.kubectl("debug", "debugged", f"--image={IMAGE}", *look, "--", "sh", "-c", "cat /proc/1/root/tmp/x")
    assert "inside\n" in seen
    assert path.kubectl("logs", "debugged", "-c", "look") == "inside\n"
    read = ("--profile=baseline", "-c", "read", "-i", "-q")
    talk = path.kubectl(
        "debug",
        "debugged",
        f"--image={IMAGE}",
        *read,
        "--",
        "sh",
        "-c",
        "read x; echo got $x; exit 3",
        stdin="it\n",
    )
    assert "got it\n" in talk

    _add(path, "debugged", {"name": "stays", "command": ["sleep", "1000"], "volumeMounts": [mount]})
    _add(path, "debugged", {"name": "absent", "image": f"{LOGIN_SERVER}/absent:1"})
    _add(path, "debugged", {"name": "privileged", "securityContext": {"privileged": True}})
    _add(path, "debugged", {"name": "lost", "targetContainerName": "main", "command": ["/absent"]})
    path.until(lambda: "running" in _state(path, "debugged", "stays"), "stays")
    assert path.kubectl("exec", "debugged", "-c", "stays", "--", "cat", "/data/y") == "stored\n"
    path.until(lambda: "ImagePull" in json.dumps(_state(path, "debugged", "absent")), "pull error of absent")
    refused = path.until(lambda: _state(path, "debugged", "privileged").get("terminated"), "refusal of privileged")
    assert refused is not None
    assert "spec.ephemeralContainers[4].securityContext.privileged" in refused["message"]
    assert "privileged" in path.events("debugged", "Failed")
    assert "is terminated" in path.kubectl("logs", "debugged", "-c", "privileged", code=1)
    path.until(lambda: _state(path, "debugged", "lost").get("terminated"), "end of lost")
    ended = _state(path, "debugged", "look")["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert _state(path, "debugged", "read")["terminated"]["exitCode"] == 3
    assert path.get("debugged")["status"]["phase"] == "Running"
    # They do not keep a pod from ending, and end with it.
    _add(path, "debugged-brief", {"name": "longer", "command": ["sleep", "1000"]})
    path.wait_phase("debugged-brief", "Succeeded")
    assert "terminated" in _state(path, "debugged-brief", "longer")


def _add(path: ThePath, name: str, container: dict[str, Any]) -> None:
    """Add an ephemeral container to a pod, through its sub-resource."""
    now = path.get(name)["spec"].get("ephemeralContainers") or []
    patch = {"spec": {"ephemeralContainers": [*now, {"image": IMAGE, **container}]}}
    path.kubectl("patch", "pod", name, "--subresource=ephemeralcontainers", "--type=merge", "-p", json.dumps(patch))


def _state(path: ThePath, name: str, container: str) -> dict[str, Any]:
    """The state of an ephemeral container, empty before there is one."""
    statuses = path.get(name)["status"].get("ephemeralContainerStatuses") or []
    return next((item["state"] for item in statuses if item["name"] == container), {})
