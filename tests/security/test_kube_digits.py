"""Digits and letters of other scripts are none: in names, labels, amounts, ports, versions and options."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

import pytest

from tests.kube.conftest import Server, cloud, server

__all__ = ["cloud", "server"]

#: One, as other scripts write it; each is a decimal digit to Unicode.
_ONES = ("１", "١", "१", "𝟏")


@pytest.fixture(scope="module")
def space(server: Server) -> str:
    """The path of a namespace with a config map."""
    made = server.namespace(f"d{uuid.uuid4().hex[:8]}")
    server.make(f"{made}/configmaps", {"metadata": {"name": "c"}})
    return made


def pod(**container: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"p{uuid.uuid4().hex[:8]}"},
        "spec": {"containers": [{"name": "c", "image": "x", **container}]},
    }


@pytest.mark.parametrize("one", _ONES)
def test_amounts(server: Server, space: str, one: str) -> None:
    for amount in (one, f"{one}Gi", f"1.{one}", f"1e{one}"):
        answer = server.call("POST", f"{space}/pods", pod(resources={"limits": {"memory": amount}}))
        assert 400 <= answer.status < 500, amount
        quota = {"metadata": {"name": "q"}, "spec": {"hard": {"cpu": amount}}}
        assert 400 <= server.call("POST", f"{space}/resourcequotas", quota).status < 500


@pytest.mark.parametrize("one", _ONES)
def test_names_labels_and_ports(server: Server, space: str, one: str) -> None:
    for body in (
        {"metadata": {"name": f"a{one}"}},
        {"metadata": {"name": "aſ"}},
        {"metadata": {"name": "\u212aelvin"}},
        {"metadata": {"name": "a", "labels": {"a": one}}},
        {"metadata": {"name": "a", "labels": {f"a{one}": "b"}}},
        {"metadata": {"name": "a", "annotations": {f"a{one}/b": "c"}}},
        {"metadata": {"name": "a", "finalizers": [f"a.b/{one}"]}},
    ):
        assert server.call("POST", f"{space}/configmaps", body).status == 422, body
    ports = [{"containerPort": 80, "name": f"a{one}"}]
    assert server.call("POST", f"{space}/pods", pod(ports=ports)).status == 422
    spec: dict[str, Any] = {"ports": [{"port": 80, "targetPort": f"a{one}"}], "clusterIP": f"10.0.0.{one}"}
    assert server.call("POST", f"{space}/services", {"metadata": {"name": "s"}, "spec": spec}).status == 422
    budget = {"maxUnavailable": f"{one}0%", "selector": {"matchLabels": {"a": "b"}}}
    answer = server.call(
        "POST",
        f"/apis/policy/v1{space.removeprefix('/api/v1')}/poddisruptionbudgets",
        {"metadata": {"name": "b"}, "spec": budget},
    )
    assert answer.status == 422


@pytest.mark.parametrize("one", _ONES)
def test_options(server: Server, space: str, one: str) -> None:
    shown = quote(one)
    for query in (
        f"limit={shown}",
        f"resourceVersion={shown}",
        f"timeoutSeconds={shown}&watch=true",
        f"labelSelector=a%3E{shown}",
    ):
        answer = server.call("GET", f"{space}/configmaps?{query}")
        assert answer.status == 400, (query, answer.body)
    path = f"{space}/configmaps/c"
    assert server.call("DELETE", f"{path}?gracePeriodSeconds={shown}").status == 400
    changed = {"metadata": {"name": "c", "resourceVersion": one}}
    answer = server.call("PUT", path, changed)
    assert "invalid syntax" in answer.body["message"]
    assert server.call("GET", f"{space}/pods/p:{shown}/proxy/").status in (400, 404)
    assert server.call("GET", f"{space}/services/s:{shown}/proxy/").status in (400, 404, 503)
