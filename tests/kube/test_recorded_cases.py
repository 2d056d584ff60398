"""Requests with the recorded answers of a Kubernetes 1.36 API server, sent to this one in the same order.

`data/cases.jsonl` has the requests and the answers. Generated names, times and addresses are replaced on both sides.
Other differences are listed in `DIFFERENCES`, with the reason.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.kube.conftest import Server

CASES = [json.loads(line) for line in (Path(__file__).parent / "data" / "cases.jsonl").read_text().splitlines()]

#: Differences between the answers: case, paths (a regular expression), reason.
_ALONE = "the recorded server had a scheduler and controllers beside it, this one is alone"
DIFFERENCES: dict[str, tuple[str, str]] = {
    "pod immutable update": (
        r"\.message|\.details\.causes\[0\]\.message",
        "after the sentence upstream adds a diff of its Go structs with their line numbers",
    ),
    "node virtual": (r"\.spec\.taints", "a new node is tainted by the node lifecycle controller alone"),
    "pvc": (
        r"\.metadata\.finalizers|\.spec\.storageClassName",
        "no controller here would take the finalizer away again; the recorded server had no default class",
    ),
    "scale patch": (r"\.status\.replicas", _ALONE),
    "pod image update": (r"\.status\.conditions", _ALONE),
    "strategic merge: containers by name, delete directive": (r"\.metadata\.annotations|\.status\..*", _ALONE),
    "strategic merge: remove container": (r"\.metadata\.annotations|\.status\..*", _ALONE),
    "list limit": (r"\.items\[0\].*|\.metadata\.remainingItemCount", _ALONE),
    "watch too old": (r"(\[.*)?", _ALONE),
    "delete pod grace 0": (r"\.status\.conditions", _ALONE),
}

_MADE_UP = {
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "lastTransitionTime",
    "token",
    "expirationTimestamp",
    "clusterIP",
    "clusterIPs",
    "nodePort",
    "batch.kubernetes.io/controller-uid",
    "controller-uid",
    "continue",
}


def normal(value: Any, key: str = "") -> Any:
    """Return a value with generated values replaced."""
    if key in _MADE_UP and value not in (None, "None", ["None"]):
        return f"<{key}>"
    if isinstance(value, dict):
        return {name: normal(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [normal(item) for item in value if not _of_its_surroundings(item)]
    if isinstance(value, str):
        value = re.sub(r"^gen-[a-z0-9]{5}$", "gen-<x>", value)
        return re.sub(r"kube-api-access-[a-z0-9]{5}$", "kube-api-access-<x>", value)
    return value


def _of_its_surroundings(item: Any) -> bool:
    """Return whether the recorded server's distribution or controllers added an item."""
    if not isinstance(item, dict):
        return False
    authority = (item.get("configMap") or {}).get("name") == "openshift-service-ca.crt"
    return authority or item.get("manager") in ("kube-scheduler", "kube-controller-manager")


def differences(wanted: Any, got: Any, path: str = "") -> list[str]:
    """Return the differences between two values, one line each."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        found = []
        for key in {**wanted, **got}:
            if key not in got:
                found.append(f"{path}.{key}: missing {json.dumps(wanted[key])[:200]}")
            elif key not in wanted:
                found.append(f"{path}.{key}: not recorded {json.dumps(got[key])[:200]}")
            else:
                found += differences(wanted[key], got[key], f"{path}.{key}")
        return found
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        return [
            line
            for index, (one, other) in enumerate(zip(wanted, got, strict=True))
            for line in differences(one, other, f"{path}[{index}]")
        ]
    return [] if wanted == got else [f"{path}: {json.dumps(wanted)[:300]} != {json.dumps(got)[:300]}"]


@pytest.fixture(scope="module")
def answers(server: Server) -> dict[str, tuple[int, Any]]:
    """Return this server's answer to each case."""
    server.namespace("shop")
    found = {}
    for case in CASES:
        request = case["request"]
        headers = {"User_Agent": "Python-urllib/3.11", "Content_Type": request.get("contentType", "application/json")}
        body = request.get("body")
        answer = server.call(request["method"], request["path"], body, **headers)
        found[case["case"]] = answer.status, answer.body
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_recorded_case(case: dict[str, Any], answers: dict[str, tuple[int, Any]]) -> None:
    status, body = answers[case["case"]]
    found = differences(normal(case["response"]), normal(body))
    if status != case["status"]:
        found.append(f"status: {case['status']} != {status}")
    expected, reason = DIFFERENCES.get(case["case"], ("", ""))
    known = [line for line in found if reason and re.fullmatch(expected, line.partition(": ")[0])]
    assert found == known, "\n".join(line for line in found if line not in known)
    assert bool(known) == bool(reason), "the difference is gone: take it off the list"
