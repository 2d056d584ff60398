"""Custom and external metrics: of pods, of objects, and from outside the cluster.

Adapters register the APIs of these metrics (`custom.metrics.k8s.io`, `external.metrics.k8s.io`). The metrics are read as in
upstream's `podautoscaler/metrics`, and give a number of pods as in `replica_calculator.go`. Amounts are in thousandths.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import quote, urlencode

from cumulet.common.kubernetes import Client, KubernetesError
from cumulet.common.kubernetes.client import AnyResource
from cumulet.common.kubernetes.objects import (
    CrossVersionObjectReference,
    ExternalMetricSource,
    ExternalMetricStatus,
    MetricIdentifier,
    MetricSpec,
    MetricStatus,
    MetricTarget,
    MetricValueStatus,
    Object,
    ObjectMetricSource,
    ObjectMetricStatus,
    Pod,
    PodsMetricSource,
    PodsMetricStatus,
)
from cumulet.common.kubernetes.quantity import milli
from cumulet.controllers.autoscaling.usage import MetricError, Proposal, is_near, propose
from cumulet.controllers.pods import is_ready, phase_of

_CUSTOM, _EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
_MOST = 2**31 - 1


class Scaled(NamedTuple):
    """The scaled resource: its desired and current numbers of pods, the pods, and their selector."""

    namespace: str
    desired: int
    current: int
    pods: list[Pod]
    selector: str
    #: The tolerances of scaling down and up.
    tolerances: tuple[float, float]


class Metrics:
    """Reads metrics. `resource_of` finds the resource of the object that a metric describes."""

    def __init__(
        self, client: Client, resource_of: Callable[[CrossVersionObjectReference], Awaitable[AnyResource]]
    ) -> None:
        self._client = client
        self._resource_of = resource_of

    async def proposal(self, metric: MetricSpec, scaled: Scaled) -> tuple[Proposal, MetricStatus]:
        """The proposal for a metric, and the status of the metric. Raises `MetricError`, `KubernetesError`."""
        match metric["type"]:
            case "Pods":
                return await self._of_pods(metric["pods"], scaled)
            case "Object":
                return await self._of_object(metric["object"], scaled)
            case "External":
                return await self._external(metric["external"], scaled)
        raise MetricError(f"metrics of type {metric['type']} are not known")

    async def _of_pods(self, source: PodsMetricSource, scaled: Scaled) -> tuple[Proposal, MetricStatus]:
        name, target = source["metric"]["name"], source["target"]
        query = {"labelSelector": scaled.selector, **_selecting("metricLabelSelector", source["metric"])}
        items = await self._custom(f"pods/*/{quote(name)}", scaled.namespace, query, name)
        used = {item["describedObject"]["name"]: milli(item["value"]) for item in items}
        average: MetricTarget = {"type": "AverageValue", "averageValue": target["averageValue"]}
        proposal = propose("", None, average, scaled.desired, scaled.pods, used, scaled.tolerances)
        status: PodsMetricStatus = {
            "metric": source["metric"],
            "current": {"averageValue": written(proposal.average)},
        }
        return proposal._replace(about=f"pods metric {name}"), {"type": "Pods", "pods": status}

    async def _of_object(self, source: ObjectMetricSource, scaled: Scaled) -> tuple[Proposal, MetricStatus]:
        name, target, described = source["metric"]["name"], source["target"], source["describedObject"]
        resource = await self._resource_of(described)
        plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        path = f"{plural}/{quote(described['name'])}/{quote(name)}"
        if described["kind"] == "Namespace":
            path = f"metrics/{quote(name)}"
        about = f"{name}: %s on {described['kind']} {scaled.namespace}/{described['name']}"
        items = await self._custom(path, scaled.namespace, _selecting("metricLabelSelector", source["metric"]), about)
        proposal, current = _of_value(milli(items[0]["value"]), target, scaled)
        status: ObjectMetricStatus = {"metric": source["metric"], "current": current, "describedObject": described}
        return proposal._replace(about=f"{described['kind']} metric {name}"), {"type": "Object", "object": status}

    async def _external(self, source: ExternalMetricSource, scaled: Scaled) -> tuple[Proposal, MetricStatus]:
        name = source["metric"]["name"]
        query = urlencode(_selecting("labelSelector", source["metric"]))
        path = f"/apis/{_EXTERNAL}/v1beta1/namespaces/{scaled.namespace}/{quote(name)}"
        start = f"unable to get external metric {scaled.namespace}/{name}/{source['metric'].get('selector') or 'nil'}"
        items = await self._list(f"{path}?{query}", "external", start)
        proposal, current = _of_value(sum(milli(item["value"]) for item in items), source["target"], scaled)
        status: ExternalMetricStatus = {"metric": source["metric"], "current": current}
        shown = source["metric"].get("selector") or "nil"
        return proposal._replace(about=f"external metric {name}({shown})"), {"type": "External", "external": status}

    async def _custom(self, path: str, namespace: str, query: dict[str, str], about: str) -> list[Object]:
        name, _, rest = about.partition(": %s")
        start = f"unable to get metric {name}"
        try:
            group = await self._client.request("GET", f"/apis/{_CUSTOM}")
        except KubernetesError as error:
            why = f"no custom metrics API ({_CUSTOM}) registered" if error.code == 404 else str(error)
            raise MetricError(f"{start}: unable to fetch metrics from custom metrics API: {why}{rest}") from None
        base = f"/apis/{group['preferredVersion']['groupVersion']}/namespaces/{namespace}"
        return await self._list(f"{base}/{path}?{urlencode(query)}", "custom", start, rest)

    async def _list(self, path: str, api: str, start: str, rest: str = "") -> list[Object]:
        try:
            items: list[Object] = (await self._client.request("GET", path))["items"]
        except KubernetesError as error:
            why = f"{start}: unable to fetch metrics from {api} metrics API: {error}{rest}"
            raise MetricError(why) from None
        if not items:
            raise MetricError(f"{start}: no metrics returned from {api} metrics API{rest}")
        return items


def written(amount: int) -> str:
    """Write thousandths as a quantity."""
    return str(amount // 1000) if amount % 1000 == 0 else f"{amount}m"


def _of_value(amount: int, target: MetricTarget, scaled: Scaled) -> tuple[Proposal, MetricValueStatus]:
    """The proposal for one amount: in proportion to the ready pods, or by the average for each pod."""
    if target["type"] == "AverageValue":
        each = milli(target["averageValue"])
        replicas = scaled.current
        if not replicas or not is_near(amount / (each * replicas), scaled.tolerances):
            replicas = min(math.ceil(amount / each), _MOST)
        share = math.ceil(amount / scaled.current) if scaled.current else amount
        return Proposal(replicas, share, None, ""), {"averageValue": written(share)}
    ratio = amount / milli(target["value"])
    if not scaled.desired:
        replicas = math.ceil(ratio)
    elif is_near(ratio, scaled.tolerances):
        replicas = scaled.desired
    else:
        if not scaled.pods:
            raise MetricError(
                "unable to calculate ready pods: no pods returned by selector while calculating replica count"
            )
        ready = sum(phase_of(pod) == "Running" and is_ready(pod) for pod in scaled.pods)
        replicas = math.ceil(round(ratio * ready, 6))
    return Proposal(min(replicas, _MOST), amount, None, ""), {"value": written(amount)}


def _selecting(parameter: str, metric: MetricIdentifier) -> dict[str, str]:
    """The selector of a metric as a parameter of a query."""
    selector = metric.get("selector") or {}
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for item in selector.get("matchExpressions") or ():
        key, values = item["key"], ",".join(item.get("values") or ())
        match item["operator"]:
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
    return {parameter: ",".join(terms)} if terms else {}
