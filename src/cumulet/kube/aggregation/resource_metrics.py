"""metrics.k8s.io: the current usage of nodes and pods, from the summaries of the kubelets (`/stats/summary`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import aiohttp
import msgspec
from aiohttp import web

from cumulet.common import bounded, clock
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError, not_found
from cumulet.kube.clients.kubelet import Kubelet
from cumulet.kube.http.negotiation import encode, form_of
from cumulet.kube.http.request_info import Target
from cumulet.kube.objects.selectors import Predicate, label_selector
from cumulet.kube.store import Store, Stored

GROUP = "metrics.k8s.io"
_VERSION = f"{GROUP}/v1beta1"
_TIMEOUT = aiohttp.ClientTimeout(total=10)
#: The seconds for which a summary is reused, so that a list sends one request to each node.
_FRESH = 5.0
#: The largest summary in bytes: some hundred pods with their containers.
_SUMMARY_LIMIT = 32 * 1024 * 1024
_WINDOW = "10s"
_COLUMNS = (("Name", "string", "name"), ("CPU", "string", ""), ("Memory", "string", ""), ("Window", "string", ""))


class ResourceMetrics:
    """Answers requests under `/apis/metrics.k8s.io`."""

    def __init__(self, store: Store, kubelet: Kubelet) -> None:
        self._store = store
        self._kubelet = kubelet
        self._known: dict[str, tuple[float, Object]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def answer(self, request: web.BaseRequest, target: Target) -> web.Response:
        """Answer a request; a node without a summary is not listed. Raises `ApiError` 400 and 404."""
        kind = target.row.kind
        selects = label_selector(request.query.get("labelSelector", "")) or _everything
        items = await (self._nodes(selects) if kind == "NodeMetrics" else self._pods(target, selects))
        if target.verb == "get":
            named = [obj for obj in items if obj["metadata"]["name"] == target.name]
            if not named:
                raise not_found(GROUP, target.row.plural, target.name)
            return encode(request, named[0])
        if form_of(request).shape == "Table":
            return encode(request, _table(items))
        for obj in items:
            del obj["kind"], obj["apiVersion"]
        return encode(request, {"kind": f"{kind}List", "apiVersion": _VERSION, "metadata": {}, "items": items})

    async def _nodes(self, selects: Predicate) -> list[Object]:
        nodes = [node for node in self._store.list("nodes") if selects(node)]
        summaries = await self._summaries(node.name for node in nodes)
        metrics = []
        for node in nodes:
            usage = (summaries.get(node.name) or {}).get("node") or {}
            if "cpu" in usage and "memory" in usage:
                metrics.append({**_metrics("NodeMetrics", node, usage), "usage": _usage(usage)})
        return metrics

    async def _pods(self, target: Target, selects: Predicate) -> list[Object]:
        pods = [
            pod
            for pod in self._store.list("pods", target.namespace)
            if pod.fields["spec.nodeName"]
            and pod.fields["status.phase"] == "Running"
            and target.name in ("", pod.name)
            and selects(pod)
        ]
        summaries = await self._summaries({pod.fields["spec.nodeName"] for pod in pods})
        used = {
            (item["podRef"]["namespace"], item["podRef"]["name"]): item.get("containers") or []
            for summary in summaries.values()
            for item in summary.get("pods") or ()
        }
        metrics = []
        for pod in pods:
            containers = [item for item in used.get((pod.namespace, pod.name), ()) if "cpu" in item]
            if containers:
                usages = [{"name": item["name"], "usage": _usage(item)} for item in containers]
                metrics.append({**_metrics("PodMetrics", pod, containers[0]), "containers": usages})
        return metrics

    async def _summaries(self, names: Iterable[str]) -> dict[str, Object]:
        nodes = list(names)
        answers = await asyncio.gather(*(self._summary(name) for name in nodes))
        return {name: answer for name, answer in zip(nodes, answers, strict=True) if answer is not None}

    async def _summary(self, node: str) -> Object | None:
        async with self._locks.setdefault(node, asyncio.Lock()):
            since, known = self._known.get(node, (0.0, None))
            if known is not None and time.monotonic() - since < _FRESH:
                return known
            try:
                url = f"{self._kubelet.node_address(node)}/stats/summary"
                async with self._kubelet.session.get(url, timeout=_TIMEOUT, allow_redirects=False) as response:
                    if response.status != 200:
                        return None
                    raw = await bounded.read(response, _SUMMARY_LIMIT)
                    summary = msgspec.json.decode(raw, type=Object)
            except (ApiError, aiohttp.ClientError, TimeoutError, ValueError, RecursionError):
                return None
            self._known[node] = (time.monotonic(), summary)
            return summary


def _everything(_: Stored) -> bool:
    return True


def _metrics(kind: str, stored: Stored, usage: Object) -> Object:
    metadata: Object = {"name": stored.name, "creationTimestamp": clock.rfc3339()}
    if stored.namespace:
        metadata["namespace"] = stored.namespace
    if stored.labels:
        metadata["labels"] = stored.labels
    moment = (usage.get("cpu") or {}).get("time") or clock.rfc3339()
    return {"kind": kind, "apiVersion": _VERSION, "metadata": metadata, "timestamp": moment, "window": _WINDOW}


def _usage(item: Object) -> Object:
    cpu = (item.get("cpu") or {}).get("usageNanoCores", 0)
    memory = (item.get("memory") or {}).get("workingSetBytes", 0)
    return {"cpu": f"{cpu}n" if cpu else "0", "memory": f"{-(-memory // 1024)}Ki" if memory else "0"}


def _table(items: list[Object]) -> Object:
    columns = [
        {"name": name, "type": kind, "format": form, "description": name, "priority": 0}
        for name, kind, form in _COLUMNS
    ]
    rows = []
    for obj in items:
        usages = [obj["usage"]] if "usage" in obj else [item["usage"] for item in obj["containers"]]
        cpu = sum(int(usage["cpu"].removesuffix("n")) for usage in usages)
        memory = sum(int(usage["memory"].removesuffix("Ki")) for usage in usages)
        cells = [obj["metadata"]["name"], f"{-(-cpu // 1_000_000)}m", f"{memory // 1024}Mi", obj["window"]]
        partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
        rows.append({"cells": cells, "object": partial})
    table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}}
    return {**table, "columnDefinitions": columns, "rows": rows}
