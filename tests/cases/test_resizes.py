"""The resources of a running pod change in place; what cannot be is named in its conditions."""

from __future__ import annotations

import json
from typing import Any

from tests.cases.path import ThePath, pod

_MEMORY = "memory/memory.limit_in_bytes", "memory.max"
_QUOTA = "cpu/cpu.cfs_quota_us", "cpu.max"
_MI = 1024 * 1024


def _container(name: str, **more: Any) -> dict[str, Any]:
    resources = {"requests": {"cpu": "100m", "memory": "50Mi"}, "limits": {"cpu": "200m", "memory": "100Mi"}}
    script = f"dd if=/dev/zero of=/dev/shm/{name} bs=1M count=30; trap exit TERM; while true; do sleep 0.1; done"
    return {"name": name, "resources": resources, "command": ["sh", "-c", script], **more}


def _resize(path: ThePath, container: str, resources: dict[str, Any]) -> None:
    patch = {"spec": {"containers": [{"name": container, "resources": resources}]}}
    path.kubectl("patch", "pod", "resized", "--subresource", "resize", "--patch", json.dumps(patch))


def _limit(path: ThePath, container: str, files: tuple[str, str]) -> str:
    """What a container sees of a limit, in control groups of version 1 or 2."""
    first, second = (f"/sys/fs/cgroup/{file}" for file in files)
    return path.kubectl(
        "exec", "resized", "-c", container, "--", "sh", "-c", f"cat {first} 2>/dev/null || cat {second}"
    )


def _status(path: ThePath, container: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = path.get("resized")["status"]["containerStatuses"]
    return next(item for item in found if item["name"] == container)


def _condition(path: ThePath, kind: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = path.get("resized")["status"]["conditions"]
    return next((item for item in found if item["type"] == kind), {})


def _failed(path: ThePath) -> dict[str, Any]:
    """The condition of a resize that has failed, and is tried again."""
    found = _condition(path, "PodResizeInProgress")
    return found if "message" in found else {}


def test_limits_change_while_a_container_runs(path: ThePath) -> None:
    restarted = {"resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}
    path.apply(pod("resized", [_container("kept"), _container("restarted", **restarted)]))
    path.wait("pod/resized", "condition=Ready")

    wanted = {"requests": {"cpu": "150m", "memory": "50Mi"}, "limits": {"cpu": "300m", "memory": "150Mi"}}
    _resize(path, "kept", wanted)
    _resize(path, "restarted", {"limits": {"memory": "120Mi"}})
    path.until(lambda: _status(path, "kept")["resources"] == wanted, "new resources in the status")
    assert _status(path, "kept")["allocatedResources"] == wanted["requests"]
    assert _limit(path, "kept", _MEMORY) == f"{150 * _MI}\n"
    assert _limit(path, "kept", _QUOTA).split()[0] == "30000"
    assert _status(path, "kept")["restartCount"] == 0

    # 30 MiB are in use: the kernel would kill the container.
    _resize(path, "kept", {"requests": {"memory": "20Mi"}, "limits": {"memory": "20Mi"}})
    under_way = path.until(lambda: _failed(path), "resize that fails")
    assert (under_way["status"], under_way["reason"]) == ("True", "Error")
    assert "below current usage" in under_way["message"]
    assert _limit(path, "kept", _MEMORY) == f"{150 * _MI}\n"

    _resize(path, "kept", {"requests": {"memory": "50Mi"}, "limits": {"cpu": "100", "memory": "150Mi"}})
    pending = path.until(lambda: _condition(path, "PodResizePending"), "resize that is not possible")
    assert (pending["status"], pending["reason"]) == ("True", "Infeasible")
    _resize(path, "kept", {"limits": {"cpu": "250m"}})
    path.until(lambda: _limit(path, "kept", _QUOTA).split()[0] == "25000", "new quota")
    path.until(lambda: not _condition(path, "PodResizePending"), "end of the resize")
    path.until(lambda: not _condition(path, "PodResizeInProgress"), "end of the resize")

    path.until(lambda: _status(path, "restarted")["restartCount"] == 1, "container that is restarted")
    path.until(lambda: "running" in _status(path, "restarted")["state"], "container that runs again")
    assert _limit(path, "restarted", _MEMORY) == f"{120 * _MI}\n"
    path.kubectl("delete", "pod", "resized", "--wait=false")
