"""Lists, pages, watches, tables and partial metadata."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.kube.conftest import Server

MERGE = "application/merge-patch+json"


@pytest.fixture
def path(server: Server) -> str:
    """The path of config maps `c0` to `c9` in a new namespace."""
    path = f"{server.namespace(f'n{uuid.uuid4().hex[:10]}')}/configmaps"
    for number in range(10):
        server.make(path, {"metadata": {"name": f"c{number}", "labels": {"half": str(number % 2)}}})
    return path


def names(answer: Any) -> list[str]:
    return [item["metadata"]["name"] for item in answer.body["items"]]


def test_pages_are_of_one_moment(server: Server, path: str) -> None:
    first = server.call("GET", f"{path}?limit=4")
    assert first.body["metadata"]["remainingItemCount"] == 6
    server.call("DELETE", f"{path}/c5")
    server.make(path, {"metadata": {"name": "c55"}})
    server.call("PATCH", f"{path}/c6", {"data": {"a": "new"}}, content_type=MERGE)
    rest = server.call("GET", f"{path}?limit=400&continue={first.body['metadata']['continue']}")
    assert names(first) + names(rest) == [f"c{number}" for number in range(10)]
    assert "data" not in rest.body["items"][2]
    assert rest.body["metadata"]["resourceVersion"] == first.body["metadata"]["resourceVersion"]
    assert "continue" not in rest.body["metadata"]


def test_a_list_of_the_past_and_of_the_future(server: Server, path: str) -> None:
    then = server.call("GET", path).body["metadata"]["resourceVersion"]
    server.call("DELETE", f"{path}/c0")
    exact = server.call("GET", f"{path}?resourceVersion={then}&resourceVersionMatch=Exact")
    assert names(exact)[0] == "c0"
    assert exact.body["metadata"]["resourceVersion"] == then
    assert names(server.call("GET", f"{path}?resourceVersion={then}"))[0] == "c1"
    assert names(server.call("GET", f"{path}?resourceVersion=0"))[0] == "c1"
    future = server.call("GET", f"{path}?resourceVersion={10**9}")
    assert future.status == 504
    assert future.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert server.call("GET", f"{path}?resourceVersionMatch=Exact").status == 422
    assert server.call("GET", f"{path}?resourceVersion=1&resourceVersionMatch=Newest").status == 422


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ("half=1", ["c1", "c3", "c5", "c7", "c9"]),
        ("half!=1", ["c0", "c2", "c4", "c6", "c8"]),
        ("half in (1,2)", ["c1", "c3", "c5", "c7", "c9"]),
        ("half notin (1)", ["c0", "c2", "c4", "c6", "c8"]),
        ("half", [f"c{number}" for number in range(10)]),
        ("!half", []),
        ("half=1,half in (0)", []),
        # A label that no object has.
        ("none=1", []),
        ("none!=1", [f"c{number}" for number in range(10)]),
        ("none in (1)", []),
        ("none notin (1)", [f"c{number}" for number in range(10)]),
        ("none", []),
        ("!none", [f"c{number}" for number in range(10)]),
        ("none>1", []),
        ("half>0", ["c1", "c3", "c5", "c7", "c9"]),
        ("half<1", ["c0", "c2", "c4", "c6", "c8"]),
    ],
)
def test_label_selectors(server: Server, path: str, selector: str, wanted: list[str]) -> None:
    assert names(server.call("GET", f"{path}?{urlencode({'labelSelector': selector})}")) == wanted


def test_field_selectors(server: Server, path: str) -> None:
    assert names(server.call("GET", f"{path}?fieldSelector=metadata.name%3Dc3")) == ["c3"]
    assert len(names(server.call("GET", f"{path}?fieldSelector=metadata.name!%3Dc3"))) == 9


def test_a_watch_takes_up_where_a_list_ended(server: Server, path: str) -> None:
    since = server.call("GET", path).body["metadata"]["resourceVersion"]
    server.call("PATCH", f"{path}/c1", {"metadata": {"labels": {"half": "2"}}}, content_type=MERGE)
    server.call("DELETE", f"{path}/c3")
    server.make(path, {"metadata": {"name": "cx"}})
    query = f"watch=true&timeoutSeconds=1&resourceVersion={since}"
    events = server.call("GET", f"{path}?{query}").body
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("MODIFIED", "c1"),
        ("DELETED", "c3"),
        ("ADDED", "cx"),
    ]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions)
    # An object that ceases to match is deleted for the watcher.
    events = server.call("GET", f"{path}?{query}&labelSelector=half%3D1").body
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("DELETED", "c1"),
        ("DELETED", "c3"),
    ]


def test_a_watch_with_the_state_first(server: Server, path: str) -> None:
    query = "watch=true&timeoutSeconds=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    events = server.call("GET", f"{path}?{query}").body
    assert [event["type"] for event in events] == ["ADDED"] * 10 + ["BOOKMARK"]
    assert events[-1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(events[-1]["object"]["metadata"]["resourceVersion"]) > 0


def test_tables_and_partial_metadata(server: Server, path: str) -> None:
    table = server.call("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io,application/json").body
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert [row["cells"][:2] for row in table["rows"]] == [[f"c{number}", 0] for number in range(10)]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    partial = server.call("GET", path, accept=accept).body
    assert partial["kind"] == "PartialObjectMetadataList"
    assert partial["items"][0].keys() == {"kind", "apiVersion", "metadata"}


def test_large_answers_are_compressed(server: Server, path: str) -> None:
    server.make(path, {"metadata": {"name": "large"}, "data": {"a": "x" * 200_000}})
    answer = server.call("GET", path, accept_encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) < 20_000


def test_two_versions_of_one_kind(server: Server, path: str) -> None:
    namespace = path.split("/")[4]
    old = f"/apis/autoscaling/v1/namespaces/{namespace}/horizontalpodautoscalers"
    new = old.replace("/v1/", "/v2/")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    spec = {"scaleTargetRef": target, "maxReplicas": 5, "targetCPUUtilizationPercentage": 50}
    assert server.make(old, {"metadata": {"name": "h"}, "spec": spec})["spec"]["targetCPUUtilizationPercentage"] == 50
    metric = server.call("GET", f"{new}/h").body["spec"]["metrics"][0]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    memory = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}},
    }
    server.call("PATCH", f"{new}/h", {"spec": {"metrics": [metric, memory]}}, content_type=MERGE)
    server.call("PATCH", f"{old}/h", {"spec": {"maxReplicas": 7}}, content_type=MERGE)
    assert server.call("GET", f"{new}/h").body["spec"]["metrics"] == [metric, memory]
    assert server.call("GET", f"{old}?limit=1").body["items"][0]["spec"]["maxReplicas"] == 7
    event = {
        "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": namespace},
        "note": "said",
        "reason": "Told",
        "type": "Normal",
        "action": "Telling",
        "reportingController": "x",
        "reportingInstance": "x-1",
        "eventTime": "2026-01-01T00:00:00.000000Z",
    }
    server.make(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event)
    core = server.call("GET", f"/api/v1/namespaces/{namespace}/events/e").body
    assert (core["message"], core["involvedObject"]["name"]) == ("said", "p")
