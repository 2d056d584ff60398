"""Metrics that others measure: of pods, of objects, and of what is outside of the cluster.

They are read from the APIs that adapters register (`custom.metrics.k8s.io`, `external.metrics.k8s.io`), as upstream's
`podautoscaler/metrics` does, and lead to a number of pods as in `replica_calculator.go`. Amounts are in thousandths.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import quote, urlencode

from cumulet.common.kubernetes import Client, KubernetesError, Resource
from cumulet.common.kubernetes.quantity import milli
from cumulet.controllers.autoscaling.usage import MetricError, Proposal, is_near, propose
from cumulet.controllers.controller import Object
from cumulet.controllers.pods import condition_of, phase_of

_CUSTOM, _EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
_MOST = 2**31 - 1


class Scaled(NamedTuple):
    """What is scaled: how many pods are wanted and there, which they are, and how they are selected."""

    namespace: str
    wanted: int
    there: int
    pods: list[Object]
    selector: str
    #: Of fewer and of more.
    tolerances: tuple[float, float]


class Metrics:
    """Reads metrics; `resource_of` finds the resource of an object that a metric is about."""

    def __init__(self, client: Client, resource_of: Callable[[Object], Awaitable[Resource]]) -> None:
        self._client = client
        self._resource_of = resource_of

    async def proposal(self, metric: Object, scaled: Scaled) -> tuple[Proposal, Object]:
        """How many pods a metric asks for, and what its status tells. Raises `MetricError`, `KubernetesError`."""
        match metric["type"]:
            case "Pods":
                return await self._of_pods(metric["pods"], scaled)
            case "Object":
                return await self._of_object(metric["object"], scaled)
            case "External":
                return await self._external(metric["external"], scaled)
        raise MetricError(f"metrics of type {metric['type']} are not known")

    async def _of_pods(self, source: Object, scaled: Scaled) -> tuple[Proposal, Object]:
        name, target = source["metric"]["name"], source["target"]
        query = {"labelSelector": scaled.selector, **_selecting("metricLabelSelector", source["metric"])}
        items = await self._custom(f"pods/*/{quote(name)}", scaled.namespace, query, name)
        used = {item["describedObject"]["name"]: milli(item["value"]) for item in items}
        average = {"type": "AverageValue", "averageValue": target["averageValue"]}
        found = propose("", None, average, scaled.wanted, scaled.pods, used, scaled.tolerances)
        told = {"metric": source["metric"], "current": {"averageValue": written(found.average)}}
        return found._replace(about=f"pods metric {name}"), {"type": "Pods", "pods": told}

    async def _of_object(self, source: Object, scaled: Scaled) -> tuple[Proposal, Object]:
        name, target, described = source["metric"]["name"], source["target"], source["describedObject"]
        resource = await self._resource_of(described)
        plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        path = f"{plural}/{quote(described['name'])}/{quote(name)}"
        if described["kind"] == "Namespace":
            path = f"metrics/{quote(name)}"
        about = f"{name}: %s on {described['kind']} {scaled.namespace}/{described['name']}"
        items = await self._custom(path, scaled.namespace, _selecting("metricLabelSelector", source["metric"]), about)
        proposal, current = _of_value(milli(items[0]["value"]), target, scaled)
        told = {"metric": source["metric"], "current": current, "describedObject": described}
        return proposal._replace(about=f"{described['kind']} metric {name}"), {"type": "Object", "object": told}

    async def _external(self, source: Object, scaled: Scaled) -> tuple[Proposal, Object]:
        name = source["metric"]["name"]
        query = urlencode(_selecting("labelSelector", source["metric"]))
        path = f"/apis/{_EXTERNAL}/v1beta1/namespaces/{scaled.namespace}/{quote(name)}"
        start = f"unable to get external metric {scaled.namespace}/{name}/{source['metric'].get('selector') or 'nil'}"
        items = await self._list(f"{path}?{query}", "external", start)
        proposal, current = _of_value(sum(milli(item["value"]) for item in items), source["target"], scaled)
        told = {"metric": source["metric"], "current": current}
        shown = source["metric"].get("selector") or "nil"
        return proposal._replace(about=f"external metric {name}({shown})"), {"type": "External", "external": told}

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
            found: list[Object] = (await self._client.request("GET", path))["items"]
        except KubernetesError as error:
            why = f"{start}: unable to fetch metrics from {api} metrics API: {error}{rest}"
            raise MetricError(why) from None
        if not found:
            raise MetricError(f"{start}: no metrics returned from {api} metrics API{rest}")
        return found


def written(amount: int) -> str:
    """Thousandths as a quantity."""
    return str(amount // 1000) if amount % 1000 == 0 else f"{amount}m"


def _of_value(amount: int, target: Object, scaled: Scaled) -> tuple[Proposal, Object]:
    """What one amount asks for: by itself, in proportion to the pods that are ready, or by its share for each pod."""
    if target["type"] == "AverageValue":
        each = milli(target["averageValue"])
        replicas = scaled.there
        if not replicas or not is_near(amount / (each * replicas), scaled.tolerances):
            replicas = min(math.ceil(amount / each), _MOST)
        share = math.ceil(amount / scaled.there) if scaled.there else amount
        return Proposal(replicas, share, None, ""), {"averageValue": written(share)}
    ratio = amount / milli(target["value"])
    if not scaled.wanted:
        replicas = math.ceil(ratio)
    elif is_near(ratio, scaled.tolerances):
        replicas = scaled.wanted
    else:
        if not scaled.pods:
            raise MetricError(
                "unable to calculate ready pods: no pods returned by selector while calculating replica count"
            )
        ready = sum(phase_of(pod) == "Running" and _is_ready(pod) for pod in scaled.pods)
        replicas = math.ceil(round(ratio * ready, 6))
    return Proposal(min(replicas, _MOST), amount, None, ""), {"value": written(amount)}


def _is_ready(pod: Object) -> bool:
    return bool(condition_of(pod, "Ready").get("status") == "True")


def _selecting(parameter: str, metric: Object) -> dict[str, str]:
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
