"""Looks at each autoscaler every 15 seconds and whenever it changes, and sets the size of what it is for."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from cumulet.common import clock
from cumulet.common.ascii import fold
from cumulet.common.kubernetes import KubernetesError, Resource, WorkQueue
from cumulet.common.kubernetes.client import AUTOSCALERS, PODS
from cumulet.controllers.autoscaling.metrics import Metrics, Scaled
from cumulet.controllers.autoscaling.pace import Pace, tolerance
from cumulet.controllers.autoscaling.usage import TOLERANCE, MetricError, Proposal, propose, usage_of
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.discovery import discover
from cumulet.controllers.pods import condition_of

_EVERY = 15.0
_METRICS = "/apis/metrics.k8s.io/v1beta1/namespaces"


class AutoscalingController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("horizontal-pod-autoscaler")
        self._autoscalers = context.informer(AUTOSCALERS)
        self._pods = context.informer(PODS)
        self._paces: dict[str, Pace] = {}
        self._metrics = Metrics(context.client, self._resource)
        self._kinds: dict[tuple[str, str], Resource] = {}
        self._autoscalers.add_handler(self._changed)

    def _changed(self, change: str, obj: Object, old: Object | None) -> None:
        if change == "DELETED":
            self._paces.pop(obj["metadata"]["uid"], None)
        elif old is None or old["spec"] != obj["spec"]:
            self.queue.add(key_of(obj))

    async def reconcile(self, key: Key) -> None:
        """Measure, decide, scale, tell."""
        autoscaler = self._autoscalers.get(key[1], key[0])
        if autoscaler is None or autoscaler["metadata"].get("deletionTimestamp"):
            return
        self.queue.add_after(key, _EVERY)
        look = Look(autoscaler)
        try:
            await self._look(look)
        except KubernetesError as error:
            if error.code == 409:
                self.queue.add_after(key, 0.2)
            look.set(
                "AbleToScale",
                "False",
                "FailedGetScale",
                f"the HPA controller was unable to get the target's current scale: {error}",
            )
            self._events.event(autoscaler, "Warning", "FailedGetScale", str(error))
        await self._write_status(look)

    async def _look(self, look: Look) -> None:
        spec, namespace = look.autoscaler["spec"], look.autoscaler["metadata"]["namespace"]
        resource = await self._resource(spec["scaleTargetRef"])
        path = resource.path(namespace, spec["scaleTargetRef"]["name"], "scale")
        scale = await self._client.request("GET", path)
        look.set(
            "AbleToScale",
            "True",
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        )
        current = scale["spec"].get("replicas", 0)
        look.current = (scale.get("status") or {}).get("replicas", 0)
        least, most = spec.get("minReplicas", 1), spec["maxReplicas"]
        if current == 0 and least != 0:
            look.desired = 0
            look.set(
                "ScalingActive",
                "False",
                "ScalingDisabled",
                "scaling is disabled since the replica count of the target is zero",
            )
            return
        reason = ""
        if current > most:
            wanted, reason = most, "Current number of replicas above Spec.MaxReplicas"
        elif current < least:
            wanted, reason = least, "Current number of replicas below Spec.MinReplicas"
        else:
            found = await self._measure(look, current, (scale.get("status") or {}).get("selector") or "")
            if found is None:
                return
            wanted, reason = self._pace(look, current, found)
        look.desired = wanted
        if wanted == current:
            return
        await self._client.request("PUT", path, body={**scale, "spec": {**scale["spec"], "replicas": wanted}})
        self._pace_of(look).did(wanted - current)
        look.scaled = True
        look.set(
            "AbleToScale",
            "True",
            "SucceededRescale",
            f"the HPA controller was able to update the target scale to {wanted}",
        )
        self._events.event(look.autoscaler, "Normal", "SuccessfulRescale", f"New size: {wanted}; reason: {reason}")

    def _pace_of(self, look: Look) -> Pace:
        return self._paces.setdefault(look.autoscaler["metadata"]["uid"], Pace())

    def _pace(self, look: Look, current: int, found: Proposal) -> tuple[int, str]:
        pace = self._pace_of(look)
        stable, held = pace.stabilise(look.autoscaler, current, found.replicas)
        if held:
            way = "highest" if held == "ScaleDownStabilized" else "lowest"
            look.set(
                "AbleToScale",
                "True",
                held,
                f"recent recommendations were {'higher' if way == 'highest' else 'lower'} than current one, applying the {way} recent recommendation",
            )
        else:
            look.set("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size")
        limited = pace.limit(look.autoscaler, current, stable)
        look.set("ScalingLimited", "True" if limited.limited else "False", limited.reason, limited.message)
        reason = f"{found.about} above target" if limited.replicas > current else "All metrics below target"
        return limited.replicas, reason

    async def _measure(self, look: Look, current: int, selector: str) -> Proposal | None:
        """The metric that asks for the most; where one cannot be had, only growing is safe."""
        best: Proposal | None = None
        failures: list[tuple[str, str]] = []
        for metric in look.autoscaler["spec"].get("metrics") or ():
            try:
                proposal = await self._one(look, metric, current, selector)
            except (MetricError, KubernetesError) as error:
                kind = metric["type"]
                failures.append((f"FailedGet{kind}Metric", f"failed to get {_described(metric)}: {error}"))
                continue
            if best is None or proposal.replicas > best.replicas:
                best = proposal
        if failures and (best is None or best.replicas < current):
            reason, message = failures[0]
            message = f"the HPA was unable to compute the replica count: {message}"
            look.set("ScalingActive", "False", reason, message)
            self._events.event(look.autoscaler, "Warning", reason, failures[0][1])
            look.desired = current
            return None
        if best is not None:
            message = f"the HPA was able to successfully calculate a replica count from {best.about}"
            look.set("ScalingActive", "True", "ValidMetricFound", message)
        return best

    async def _one(self, look: Look, metric: Object, current: int, selector: str) -> Proposal:
        kind, namespace = metric["type"], look.autoscaler["metadata"]["namespace"]
        pods = [pod for pod in self._pods.indexed("namespace", namespace) if _matches(selector, pod)]
        fewer, more = (tolerance(look.autoscaler, way, TOLERANCE) for way in ("scaleDown", "scaleUp"))
        if kind not in ("Resource", "ContainerResource"):
            scaled = Scaled(namespace, current, look.current, pods, selector, (fewer, more))
            found, told = await self._metrics.proposal(metric, scaled)
            look.metrics.append(told)
            return found
        source = metric["resource" if kind == "Resource" else "containerResource"]
        query = urlencode({"labelSelector": selector})
        try:
            samples = (await self._client.request("GET", f"{_METRICS}/{namespace}/pods?{query}"))["items"] or []
        except KubernetesError as error:
            what = f"unable to fetch metrics from resource metrics API: {error}"
            raise MetricError(f"unable to get metrics for resource {source['name']}: {what}") from error
        container = source.get("container")
        used = usage_of(samples, source["name"], container)
        proposal = propose(source["name"], container, source["target"], current, pods, used, (fewer, more))
        seen: Object = {"averageValue": f"{proposal.average}m"}
        if source["name"] != "cpu" and proposal.average % 1000 == 0:
            seen["averageValue"] = str(proposal.average // 1000)
        if proposal.utilization is not None:
            seen["averageUtilization"] = proposal.utilization
        part: Object = {"name": source["name"], "current": seen} | ({"container": container} if container else {})
        look.metrics.append({"type": kind, "resource" if kind == "Resource" else "containerResource": part})
        return proposal

    async def _resource(self, target: Object) -> Resource:
        identity = target.get("apiVersion", "").rpartition("/")[0], target["kind"]
        if identity not in self._kinds:
            found = await discover(self._client)
            self._kinds = {(item.resource.group, item.resource.kind): item.resource for item in found}
        if identity not in self._kinds:
            message = f'no matches for kind "{target["kind"]}" in group "{identity[0]}"'
            raise KubernetesError(404, {"message": message, "reason": "NotFound"})
        return self._kinds[identity]

    async def _write_status(self, look: Look) -> None:
        status = look.status()
        if status == (look.autoscaler.get("status") or {}):
            return
        try:
            await self._client.update(AUTOSCALERS, {**look.autoscaler, "status": status}, "status")
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


class Look:
    """One look at an autoscaler: what it found and what is told of it."""

    def __init__(self, autoscaler: Object) -> None:
        old = autoscaler.get("status") or {}
        self.autoscaler = autoscaler
        self.current: int = old.get("currentReplicas", 0)
        self.desired: int = old.get("desiredReplicas", 0)
        self.metrics: list[Object] = []
        self.scaled = False
        self._conditions: dict[str, Object] = {item["type"]: item for item in old.get("conditions") or ()}

    def set(self, kind: str, status: str, reason: str, message: str) -> None:
        """Set a condition."""
        old = condition_of(self.autoscaler, kind)
        since = old["lastTransitionTime"] if old.get("status") == status else clock.rfc3339()
        told = {"type": kind, "status": status, "reason": reason, "message": message}
        self._conditions[kind] = {**told, "lastTransitionTime": since}

    def status(self) -> Object:
        """The whole status."""
        old = self.autoscaler.get("status") or {}
        found: Object = {
            "currentReplicas": self.current,
            "desiredReplicas": self.desired,
            "conditions": list(self._conditions.values()),
            "observedGeneration": self.autoscaler["metadata"].get("generation", 0),
            "currentMetrics": self.metrics or None,
        }
        if self.scaled:
            found["lastScaleTime"] = clock.rfc3339()
        elif "lastScaleTime" in old:
            found["lastScaleTime"] = old["lastScaleTime"]
        return {
            name: value for name, value in found.items() if value or name in ("currentMetrics", "desiredReplicas")
        }


def _described(metric: Object) -> str:
    match metric["type"]:
        case "Pods" | "Object":
            return f"{fold(metric['type'])} metric value"
        case "External":
            return f"{metric['external']['metric']['name']} external metric value"
    source = metric.get("resource") or metric.get("containerResource") or {}
    target = (
        "resource utilization"
        if (source.get("target") or {}).get("type") == "Utilization"
        else "resource metric value"
    )
    return f"{source.get('name', metric['type'])} {target}"


def _matches(selector: str, pod: Object) -> bool:
    """A selector as the scale sub-resource writes it: `a=b,c in (d,e),!f,g`."""
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
    for word, wanted in ((" notin ", False), (" in ", True)):
        if word in term:
            key, _, values = term.partition(word)
            among = labels.get(key.strip()) in [item.strip() for item in values.strip(" ()").split(",")]
            return among is wanted
    for sign, wanted in (("!=", False), ("==", True), ("=", True)):
        if sign in term:
            key, _, value = term.partition(sign)
            return (labels.get(key.strip()) == value.strip()) is wanted
    return term[1:].strip() not in labels if term.startswith("!") else term in labels
