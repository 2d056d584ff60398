"""Defaults of the workload kinds."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.defaults.pods import pod_template
from cumulet.kube.schema.defaults.storage import claim
from cumulet.kube.schema.defaults.values import default

_MAX_INT32 = 2**31 - 1


def deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    default(spec, replicas=1, strategy={}, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec["strategy"]
    default(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        default(strategy, rollingUpdate={})
        default(strategy["rollingUpdate"], maxUnavailable="25%", maxSurge="25%")
    pod_template(spec.setdefault("template", {}))


def replica_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    default(spec, replicas=1)
    pod_template(spec.setdefault("template", {}))


def replication_controller(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    default(spec, replicas=1)
    if (template := spec.get("template")) is None:
        return
    pod_template(template)
    if labels := (template.get("metadata") or {}).get("labels"):
        default(spec, selector=dict(labels))
        default(obj["metadata"], labels=dict(labels))


def stateful_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    default(spec, replicas=1, podManagementPolicy="OrderedReady", updateStrategy={}, revisionHistoryLimit=10)
    strategy = spec["updateStrategy"]
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
        default(strategy, rollingUpdate={})
    if strategy["type"] == "RollingUpdate" and strategy.get("rollingUpdate") is not None:
        default(strategy["rollingUpdate"], partition=0)
    default(spec, persistentVolumeClaimRetentionPolicy={})
    default(spec["persistentVolumeClaimRetentionPolicy"], whenDeleted="Retain", whenScaled="Retain")
    pod_template(spec.setdefault("template", {}))
    for template in spec.get("volumeClaimTemplates") or ():
        template |= {"kind": "PersistentVolumeClaim", "apiVersion": "v1"}
        claim(template)


def daemon_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    annotations = obj["metadata"].setdefault("annotations", {})
    annotations.setdefault("deprecated.daemonset.template.generation", "1")
    default(spec, updateStrategy={}, revisionHistoryLimit=10)
    default(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        default(spec["updateStrategy"], rollingUpdate={})
        default(spec["updateStrategy"]["rollingUpdate"], maxUnavailable=1, maxSurge=0)
    pod_template(spec.setdefault("template", {}))


def job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    default(
        spec,
        parallelism=1,
        backoffLimit=6 if spec.get("backoffLimitPerIndex") is None else _MAX_INT32,
        manualSelector=False,
        completionMode="NonIndexed",
        suspend=False,
        podReplacementPolicy="TerminatingOrFailed" if spec.get("podFailurePolicy") is None else "Failed",
    )
    _failure_policy(spec)
    template = spec.setdefault("template", {})
    pod_template(template)
    if labels := template["metadata"].get("labels"):
        default(obj["metadata"], labels=dict(labels))


def _failure_policy(spec: Object) -> None:
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"


def cron_job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    default(spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
    template = spec.setdefault("jobTemplate", {})
    default(template, metadata={})
    made = template.setdefault("spec", {})
    _failure_policy(made)
    pod_template(made.setdefault("template", {}))
