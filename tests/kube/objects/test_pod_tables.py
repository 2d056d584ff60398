"""The columns READY, STATUS and RESTARTS of a pod (upstream's `printPod`)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.kube.conftest import Server

INITIALIZED = {"type": "Initialized", "status": "True"}
READY = {"type": "Ready", "status": "True"}


def _container(name: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    fixed = {"image": "x", "imageID": "", "ready": False, "restartCount": 0, "lastState": {}}
    return {"name": name, **fixed, "state": state, **more}


def _ended(code: int, reason: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, **({"reason": reason} if reason else {})}}


RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def _waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason}}


@pytest.mark.parametrize(
    ("init", "main", "phase", "conditions", "cells"),
    [
        (
            _container("init", RUNNING),
            _container("main", _waiting("PodInitializing")),
            "Pending",
            [],
            "0/2 Init:0/2 0",
        ),
        (_container("init", _ended(3, "Error")), None, "Pending", [], "0/2 Init:Error 0"),
        (_container("init", _ended(3)), None, "Pending", [], "0/2 Init:ExitCode:3 0"),
        (
            _container("init", _waiting("CrashLoopBackOff"), restartCount=2),
            _container("main", _waiting("PodInitializing")),
            "Pending",
            [],
            "0/2 Init:CrashLoopBackOff 2",
        ),
        (
            _container("side", RUNNING, started=True, ready=True, restartCount=1),
            _container("main", RUNNING, ready=True),
            "Running",
            [INITIALIZED, READY],
            "2/2 Running 1",
        ),
        # A sidecar is killed at the end of its pod: the pod has nevertheless succeeded.
        (
            _container("side", _ended(137, "Error"), started=False),
            _container("main", _ended(0, "Completed")),
            "Succeeded",
            [{**INITIALIZED, "reason": "PodCompleted"}],
            "0/2 Completed 0",
        ),
        (
            _container("side", _ended(143, "Error"), restartCount=3),
            _container("main", _ended(1, "Error"), restartCount=2),
            "Failed",
            [INITIALIZED],
            "0/2 Error 5",
        ),
        (_container("init", _ended(0)), _container("main", _ended(137)), "Failed", [], "0/2 ExitCode:137 0"),
    ],
)
def test_a_pod_in_one_line(
    server: Server,
    init: dict[str, Any],
    main: dict[str, Any] | None,
    phase: str,
    conditions: list[dict[str, str]],
    cells: str,
) -> None:
    path = f"{server.namespace(f'n{uuid.uuid4().hex[:10]}')}/pods"
    inits: list[dict[str, Any]] = [{"name": init["name"], "image": "x"}]
    if init["name"] == "side":
        inits[0]["restartPolicy"] = "Always"
    else:
        inits.append({"name": "side", "image": "x", "restartPolicy": "Always"})
    spec = {"containers": [{"name": "main", "image": "x"}], "initContainers": inits}
    server.make(path, {"metadata": {"name": "p"}, "spec": spec})
    started = [_container("side", RUNNING, started=True)] if init["name"] != "side" and phase == "Failed" else []
    status = {
        "phase": phase,
        "conditions": conditions,
        "initContainerStatuses": [init, *started],
        "containerStatuses": [main] if main else [],
    }
    answer = server.call("PATCH", f"{path}/p/status", {"status": status}, content_type="application/merge-patch+json")
    assert answer.status == 200, answer.body
    table = server.call("GET", f"{path}/p", accept="application/json;as=Table;v=v1;g=meta.k8s.io").body
    assert " ".join(str(cell) for cell in table["rows"][0]["cells"][1:4]) == cells
