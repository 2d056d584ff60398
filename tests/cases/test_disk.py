"""The disk is bounded: pods that exceed a limit of theirs are evicted in the kubelet's words, and others run on."""

from __future__ import annotations

from typing import Any

from tests.cases.path import ThePath, pod

_FILLS = "head -c 5000000 /dev/zero >{}; sleep 1000"


def _writing(file: str, limit: str | None = None, **more: Any) -> dict[str, Any]:
    resources = {"resources": {"limits": {"ephemeral-storage": limit}}} if limit else {}
    return {"name": "main", "command": ["sh", "-c", _FILLS.format(file)], **resources, **more}


def test_pods_that_exceed_their_limits_are_evicted(path: ThePath) -> None:
    mount: dict[str, Any] = {"volumeMounts": [{"name": "room", "mountPath": "/v"}]}
    other = {"name": "other", "command": ["sleep", "1000"], "resources": {"limits": {"ephemeral-storage": "1Gi"}}}
    logging = ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; sleep 1000"]
    path.apply(
        pod("disk-volume", [_writing("/v/x", **mount)], volumes=[{"name": "room", "emptyDir": {"sizeLimit": "1Mi"}}]),
        pod("disk-layer", [_writing("/x", "1Mi"), other]),
        pod("disk-total", [_writing("/v/x", "2Mi", **mount)], volumes=[{"name": "room", "emptyDir": {}}]),
        pod("disk-log", [_writing("/dev/null", "1Mi", command=logging)], restartPolicy="Never"),
        pod("disk-enough", [_writing("/x", "50Mi")]),
    )
    for name, message in (
        ("disk-volume", 'Usage of EmptyDir volume "room" exceeds the limit "1Mi". '),
        ("disk-layer", 'Container main exceeded its local ephemeral storage limit "1Mi". '),
        ("disk-total", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
        ("disk-log", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "),
    ):
        path.wait_phase(name, "Failed")
        status = path.get(name)["status"]
        assert (status["reason"], status["message"]) == ("Evicted", message)
        (target,) = [item for item in status["conditions"] if item["type"] == "DisruptionTarget"]
        assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
        assert all("terminated" in item["state"] for item in status["containerStatuses"])
        assert message.strip() in path.events(name, "Evicted")
    assert path.get("disk-enough")["status"]["phase"] == "Running"
