"""Evaluates each autoscaler every 15 seconds and after each change, and scales its target."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from cumulet.common import clock
from cumulet.common.ascii import fold
from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import AUTOSCALERS, PODS, AnyResource
from cumulet.common.kubernetes.objects import (
    ContainerResourceMetricStatus,
    CrossVersionObjectReference,
    HorizontalPodAutoscaler,
    MetricSpec,
    MetricStatus,
    MetricValueStatus,
    Object,
    Pod,
    Scale,
)
from cumulet.controllers.autoscaling.metrics import Metrics, Scaled
from cumulet.controllers.autoscaling.pace import Pace, tolerance
from cumulet.controllers.autoscaling.usage import TOLERANCE, MetricError, Proposal, propose, usage_of
from cumulet.controllers.conditions import condition_of
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.discovery import discover

_EVERY = 15.0
_METRICS = "/apis/metrics.k8s.io/v1beta1/namespaces"


class AutoscalingController:
    """The controller of horizontal pod autoscalers."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("horizontal-pod-autoscaler")
        self._autoscalers = context.informer(AUTOSCALERS)
        self._pods = context.informer(PODS)
        self._paces: dict[str, Pace] = {}
        self._metrics = Metrics(context.client, self._resource)
        self._kinds: dict[tuple[str, str], AnyResource] = {}
        self._autoscalers.add_handler(self._changed)

    def _changed(self, change: str, autoscaler: HorizontalPodAutoscaler, old: HorizontalPodAutoscaler | None) -> None:
        if change == "DELETED":
            self._paces.pop(autoscaler["metadata"]["uid"], None)
        elif old is None or old["spec"] != autoscaler["spec"]:
            self.queue.add(key_of(autoscaler))

    async def reconcile(self, key: Key) -> None:
        """Measure the metrics, scale the target, write the status."""
        autoscaler = self._autoscalers.get(key[1], key[0])
        if autoscaler is None or autoscaler["metadata"].get("deletionTimestamp"):
            return
        self.queue.add_after(key, _EVERY)
        evaluation = Evaluation(autoscaler)
        try:
            await self._evaluate(evaluation)
        except KubernetesError as error:
            if error.code == 409:
                self.queue.add_after(key, 0.2)
            evaluation.set(
                "AbleToScale",
                "False",
                "FailedGetScale",
                f"the HPA controller was unable to get the target's current scale: {error}",
            )
            self._events.event(autoscaler, "Warning", "FailedGetScale", str(error))
        await self._write_status(evaluation)

    async def _evaluate(self, evaluation: Evaluation) -> None:
        spec, namespace = evaluation.autoscaler["spec"], evaluation.autoscaler["metadata"]["namespace"]
        resource = await self._resource(spec["scaleTargetRef"])
        path = resource.path(namespace, spec["scaleTargetRef"]["name"], "scale")
        scale: Scale = await self._client.request("GET", path)
        evaluation.set(
            "AbleToScale",
            "True",
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        )
        current = scale["spec"].get("replicas", 0)
        evaluation.current = (scale.get("status") or {}).get("replicas", 0)
        least, most = spec.get("minReplicas", 1), spec["maxReplicas"]
        if current == 0 and least != 0:
            evaluation.desired = 0
            evaluation.set(
                "ScalingActive",
                "False",
                "ScalingDisabled",
                "scaling is disabled since the replica count of the target is zero",
            )
            return
        reason = ""
        if current > most:
            size, reason = most, "Current number of replicas above Spec.MaxReplicas"
        elif current < least:
            size, reason = least, "Current number of replicas below Spec.MinReplicas"
        else:
            proposal = await self._measure(evaluation, current, (scale.get("status") or {}).get("selector") or "")
            if proposal is None:
                return
            size, reason = self._limit(evaluation, current, proposal)
        evaluation.desired = size
        if size == current:
            return
        await self._client.request("PUT", path, body={**scale, "spec": {**scale["spec"], "replicas": size}})
        self._pace_of(evaluation).record(size - current)
        evaluation.scaled = True
        evaluation.set(
            "AbleToScale",
            "True",
            "SucceededRescale",
            f"the HPA controller was able to update the target scale to {size}",
        )
        self._events.event(
            evaluation.autoscaler, "Normal", "SuccessfulRescale", f"New size: {size}; reason: {reason}"
        )

    def _pace_of(self, evaluation: Evaluation) -> Pace:
        return self._paces.setdefault(evaluation.autoscaler["metadata"]["uid"], Pace())

    def _limit(self, evaluation: Evaluation, current: int, proposal: Proposal) -> tuple[int, str]:
        pace = self._pace_of(evaluation)
        stable, held = pace.stabilise(evaluation.autoscaler, current, proposal.replicas)
        if held:
            way = "highest" if held == "ScaleDownStabilized" else "lowest"
            evaluation.set(
                "AbleToScale",
                "True",
                held,
                f"recent recommendations were {'higher' if way == 'highest' else 'lower'} than current one, applying the {way} recent recommendation",
            )
        else:
            evaluation.set("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size")
        limited = pace.limit(evaluation.autoscaler, current, stable)
        evaluation.set("ScalingLimited", "True" if limited.limited else "False", limited.reason, limited.message)
        reason = f"{proposal.about} above target" if limited.replicas > current else "All metrics below target"
        return limited.replicas, reason

    async def _measure(self, evaluation: Evaluation, current: int, selector: str) -> Proposal | None:
        """The largest proposal of all metrics, or `None`. If a metric is not available, only scaling up is safe."""
        best: Proposal | None = None
        failures: list[tuple[str, str]] = []
        for metric in evaluation.autoscaler["spec"].get("metrics") or ():
            try:
                proposal = await self._one(evaluation, metric, current, selector)
            except (MetricError, KubernetesError) as error:
                kind = metric["type"]
                failures.append((f"FailedGet{kind}Metric", f"failed to get {_described(metric)}: {error}"))
                continue
            if best is None or proposal.replicas > best.replicas:
                best = proposal
        if failures and (best is None or best.replicas < current):
            reason, message = failures[0]
            message = f"the HPA was unable to compute the replica count: {message}"
            evaluation.set("ScalingActive", "False", reason, message)
            self._events.event(evaluation.autoscaler, "Warning", reason, failures[0][1])
            evaluation.desired = current
            return None
        if best is not None:
            message = f"the HPA was able to successfully calculate a replica count from {best.about}"
            evaluation.set("ScalingActive", "True", "ValidMetricFound", message)
        return best

    async def _one(self, evaluation: Evaluation, metric: MetricSpec, current: int, selector: str) -> Proposal:
        kind, namespace = metric["type"], evaluation.autoscaler["metadata"]["namespace"]
        pods = [pod for pod in self._pods.indexed("namespace", namespace) if _matches(selector, pod)]
        down = tolerance(evaluation.autoscaler, "scaleDown", TOLERANCE)
        up = tolerance(evaluation.autoscaler, "scaleUp", TOLERANCE)
        if kind not in ("Resource", "ContainerResource"):
            scaled = Scaled(namespace, current, evaluation.current, pods, selector, (down, up))
            proposal, status = await self._metrics.proposal(metric, scaled)
            evaluation.metrics.append(status)
            return proposal
        container: str | None = None
        if kind == "Resource":
            name, target = metric["resource"]["name"], metric["resource"]["target"]
        else:
            source = metric["containerResource"]
            name, target, container = source["name"], source["target"], source["container"]
        query = urlencode({"labelSelector": selector})
        try:
            samples = (await self._client.request("GET", f"{_METRICS}/{namespace}/pods?{query}"))["items"] or []
        except KubernetesError as error:
            failure = f"unable to fetch metrics from resource metrics API: {error}"
            raise MetricError(f"unable to get metrics for resource {name}: {failure}") from error
        used = usage_of(samples, name, container)
        proposal = propose(name, container, target, current, pods, used, (down, up))
        measured: MetricValueStatus = {"averageValue": f"{proposal.average}m"}
        if name != "cpu" and proposal.average % 1000 == 0:
            measured["averageValue"] = str(proposal.average // 1000)
        if proposal.utilization is not None:
            measured["averageUtilization"] = proposal.utilization
        if container is None:
            evaluation.metrics.append({"type": kind, "resource": {"name": name, "current": measured}})
        else:
            described: ContainerResourceMetricStatus = {"name": name, "container": container, "current": measured}
            evaluation.metrics.append({"type": kind, "containerResource": described})
        return proposal

    async def _resource(self, target: CrossVersionObjectReference) -> AnyResource:
        identity = target.get("apiVersion", "").rpartition("/")[0], target["kind"]
        if identity not in self._kinds:
            served = await discover(self._client)
            self._kinds = {(item.resource.group, item.resource.kind): item.resource for item in served}
        if identity not in self._kinds:
            message = f'no matches for kind "{target["kind"]}" in group "{identity[0]}"'
            raise KubernetesError(404, {"message": message, "reason": "NotFound"})
        return self._kinds[identity]

    async def _write_status(self, evaluation: Evaluation) -> None:
        status = evaluation.status()
        if status == (evaluation.autoscaler.get("status") or {}):
            return
        with suppress_stale():
            await self._client.update_status(AUTOSCALERS, evaluation.autoscaler, status)


class Evaluation:
    """One evaluation of an autoscaler, which collects its next status."""

    def __init__(self, autoscaler: HorizontalPodAutoscaler) -> None:
        old = autoscaler.get("status") or {}
        self.autoscaler = autoscaler
        self.current: int = old.get("currentReplicas", 0)
        self.desired: int = old.get("desiredReplicas", 0)
        self.metrics: list[MetricStatus] = []
        self.scaled = False
        self._conditions = {item["type"]: item for item in old.get("conditions") or ()}

    def set(self, kind: str, status: str, reason: str, message: str) -> None:
        """Set a condition."""
        old = condition_of(self.autoscaler, kind)
        unchanged = old is not None and old["status"] == status
        self._conditions[kind] = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": old["lastTransitionTime"] if old is not None and unchanged else clock.rfc3339(),
        }

    def status(self) -> Object:
        """The whole status."""
        old = self.autoscaler.get("status") or {}
        status: Object = {
            "currentReplicas": self.current,
            "desiredReplicas": self.desired,
            "conditions": list(self._conditions.values()),
            "observedGeneration": self.autoscaler["metadata"].get("generation", 0),
            "currentMetrics": self.metrics or None,
        }
        if self.scaled:
            status["lastScaleTime"] = clock.rfc3339()
        elif "lastScaleTime" in old:
            status["lastScaleTime"] = old["lastScaleTime"]
        return {
            name: value for name, value in status.items() if value or name in ("currentMetrics", "desiredReplicas")
        }


def _described(metric: MetricSpec) -> str:
    match metric["type"]:
        case "Pods" | "Object":
            return f"{fold(metric['type'])} metric value"
        case "External":
            return f"{metric['external']['metric']['name']} external metric value"
    source = metric.get("resource") or metric.get("containerResource")
    if source is None:
        return f"{metric['type']} resource metric value"
    by_share = source["target"]["type"] == "Utilization"
    return f"{source['name']} {'resource utilization' if by_share else 'resource metric value'}"


def _matches(selector: str, pod: Pod) -> bool:
    """Whether a pod matches a selector in the notation of the scale subresource: `a=b,c in (d,e),!f,g`."""
    labels = pod["metadata"].get("labels") or {}
    return all(_term(term, labels) for term in _terms(selector))


def _terms(selector: str) -> Iterable[str]:
    depth, term = 0, ""
    for char in selector:
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            yield term.strip()
            term = ""
        else:
            term += char
    if term.strip():
        yield term.strip()


def _term(term: str, labels: dict[str, str]) -> bool:
    for word, expected in ((" notin ", False), (" in ", True)):
        if word in term:
            key, _, values = term.partition(word)
            contained = labels.get(key.strip()) in [item.strip() for item in values.strip(" ()").split(",")]
            return contained is expected
    for sign, expected in (("!=", False), ("==", True), ("=", True)):
        if sign in term:
            key, _, value = term.partition(sign)
            return (labels.get(key.strip()) == value.strip()) is expected
    return term[1:].strip() not in labels if term.startswith("!") else term in labels
