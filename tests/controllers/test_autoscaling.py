"""Autoscaling by what pods use, as the API server hears it from the nodes' kubelets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.controllers.node import StandInNode
from tests.controllers.space import Object, Space, condition, workload
from tests.kube.behind import Behind
from tests.kube.conftest import Server
from tests.kube.kubelet import StandInKubelet

SCALERS = "horizontalpodautoscalers"


@pytest.fixture
def kubelet(space: Space, cluster: Cloud, node: StandInNode) -> Iterator[StandInKubelet]:
    """The kubelet of the node, which tells what pods use."""
    made = StandInKubelet(cluster.config)
    space.status(
        "nodes",
        node.name,
        addresses=[{"type": "InternalIP", "address": "127.0.0.1"}],
        daemonEndpoints={"kubeletEndpoint": {"Port": made.port}},
    )
    yield made
    made.close()


def _use(space: Space, kubelet: StandInKubelet, millicores: int) -> None:
    """Every pod uses so much."""
    container = {"name": "c", "cpu": {"usageNanoCores": millicores * 1_000_000}, "memory": {"workingSetBytes": 2**23}}
    kubelet.summary = {
        "pods": [
            {"podRef": {"namespace": space.name, "name": pod["metadata"]["name"]}, "containers": [container]}
            for pod in space.living()
        ]
    }


def _scaler(**more: Any) -> Object:
    target = {"type": "Utilization", "averageUtilization": 50}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1,
        "maxReplicas": 5,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }
    return {"metadata": {"name": "web"}, "spec": spec | more}


def _deploy(space: Space, replicas: int) -> None:
    made = workload("web", replicas=replicas)
    made["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m"}}
    space.make("deployments", made)
    space.wait_status("deployments", "web", availableReplicas=replicas)


def test_growing_and_shrinking(space: Space, kubelet: StandInKubelet) -> None:
    _deploy(space, 2)
    _use(space, kubelet, 100)
    space.make(SCALERS, _scaler())
    space.wait_status("deployments", "web", availableReplicas=4)
    scaled = space.wait(SCALERS, "web", lambda obj: obj["status"].get("lastScaleTime"))
    assert scaled["status"]["currentMetrics"][0]["resource"]["current"] == {
        "averageUtilization": 100,
        "averageValue": "100m",
    }
    assert condition(scaled, "ScalingActive")["reason"] == "ValidMetricFound"
    assert condition(scaled, "AbleToScale")["reason"] == "SucceededRescale"
    reason = "cpu resource utilization (percentage of request) above target"
    assert f"SuccessfulRescale: New size: 4; reason: {reason}" in space.events("web")
    # More may be used: it waits for the window, and does not wait where there is none.
    rare = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 500}}
    space.patch(SCALERS, "web", {"spec": {"metrics": [{"type": "Resource", "resource": rare}]}}, kind="merge")
    held = space.wait(SCALERS, "web", lambda obj: condition(obj, "AbleToScale")["reason"] == "ScaleDownStabilized")
    assert held["status"]["desiredReplicas"] == 4
    space.patch(SCALERS, "web", {"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}})
    space.wait_status("deployments", "web", replicas=1)


def test_bounds(space: Space) -> None:
    _deploy(space, 1)
    space.make(SCALERS, _scaler(minReplicas=3))
    space.wait_status("deployments", "web", replicas=3)
    assert space.wait_event("web", "SuccessfulRescale") == (
        "New size: 3; reason: Current number of replicas below Spec.MinReplicas"
    )


def test_what_cannot_be_measured(space: Space) -> None:
    _deploy(space, 1)
    space.make(SCALERS, _scaler())
    told = space.wait(SCALERS, "web", lambda obj: condition(obj, "ScalingActive"))
    assert condition(told, "ScalingActive")["status"] == "False"
    assert condition(told, "ScalingActive")["reason"] == "FailedGetResourceMetric"
    assert "no metrics returned from resource metrics API" in condition(told, "ScalingActive")["message"]
    lost = _scaler(scaleTargetRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "nobody"})
    lost["metadata"]["name"] = "lost"
    space.make(SCALERS, lost)
    told = space.wait(SCALERS, "lost", lambda obj: condition(obj, "AbleToScale"))
    assert condition(told, "AbleToScale")["reason"] == "FailedGetScale"


@pytest.fixture
def adapters(space: Space, server: Server, tmp_path: Path) -> Iterator[tuple[Behind, Behind]]:
    """Servers of custom and of external metrics."""
    made = []
    for group, version in (("custom.metrics.k8s.io", "v1beta2"), ("external.metrics.k8s.io", "v1beta1")):
        folder = tmp_path / group
        folder.mkdir()
        name = f"{space.name}-{version}"
        server.make("/api/v1/namespaces", {"metadata": {"name": name}})
        made.append(Behind(server, f"/api/v1/namespaces/{name}", folder, group, version))
        made[-1].serve()
        assert made[-1].register().status == 201
        made[-1].condition("Passed")
    yield made[0], made[1]
    for behind in made:
        behind.close()


def _metrics(*metrics: Object) -> Object:
    quick = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    return {"spec": {"metrics": list(metrics), "behavior": quick}}


def test_what_adapters_measure(space: Space, adapters: tuple[Behind, Behind]) -> None:
    custom, external = adapters
    _deploy(space, 1)
    queue = {"metric": {"name": "queue", "selector": {"matchLabels": {"app": "web"}}}}
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{space.name}/queue"
    external.answers[path] = {"items": [{"value": "25"}, {"value": "10"}]}
    one = {"type": "External", "external": {**queue, "target": {"type": "AverageValue", "averageValue": "10"}}}
    space.make(SCALERS, _scaler(**_metrics(one)["spec"]))
    space.wait_status("deployments", "web", availableReplicas=4)
    assert "labelSelector=app%3Dweb" in next(path for _, path, _, _ in external.requests if "queue" in path)
    scaled = space.wait(SCALERS, "web", lambda obj: (obj["status"].get("currentMetrics") or [{}])[0].get("external"))
    assert condition(scaled, "ScalingActive")["reason"] == "ValidMetricFound"
    # An amount by itself, in proportion to the pods that are ready.
    base = f"/apis/custom.metrics.k8s.io/v1beta2/namespaces/{space.name}"
    described = {"apiVersion": "v1", "kind": "Service", "name": "web"}
    custom.answers[f"{base}/services/web/hits"] = {"items": [{"describedObject": described, "value": "50"}]}
    target = {"type": "Value", "value": "100"}
    one = {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": described, "target": target}}
    space.patch(SCALERS, "web", _metrics(one), kind="merge")
    space.wait_status("deployments", "web", replicas=2)
    # What each of the pods has.
    pods = [pod["metadata"]["name"] for pod in space.living()]
    items = [{"describedObject": {"kind": "Pod", "name": name}, "value": "1500m"} for name in pods]
    custom.answers[f"{base}/pods/%2A/load"] = custom.answers[f"{base}/pods/*/load"] = {"items": items}
    target = {"type": "AverageValue", "averageValue": "1"}
    one = {"type": "Pods", "pods": {"metric": {"name": "load"}, "target": target}}
    space.patch(SCALERS, "web", _metrics(one), kind="merge")
    space.wait_status("deployments", "web", replicas=3)
    told = "SuccessfulRescale: New size: 3; reason: pods metric load above target"
    space.wait(SCALERS, "web", lambda obj: told in space.events("web"))


def test_metrics_that_nobody_measures(space: Space) -> None:
    _deploy(space, 1)
    target = {"type": "AverageValue", "averageValue": "1"}
    for kind, part, message in (
        ("Pods", "pods", "no custom metrics API (custom.metrics.k8s.io) registered"),
        ("External", "external", "unable to fetch metrics from external metrics API: "),
    ):
        metric = {"type": kind, part: {"metric": {"name": "load"}, "target": target}}
        scaler = _scaler(metrics=[metric])
        scaler["metadata"]["name"] = part
        space.make(SCALERS, scaler)
        told = space.wait(SCALERS, part, lambda obj: condition(obj, "ScalingActive"))
        assert condition(told, "ScalingActive")["reason"] == f"FailedGet{kind}Metric"
        assert message in condition(told, "ScalingActive")["message"]
