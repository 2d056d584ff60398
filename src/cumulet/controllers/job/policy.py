"""The effect of a failed pod on its job (`podFailurePolicy`), and the criteria of success (`successPolicy`)."""

from __future__ import annotations

from typing import NamedTuple

from cumulet.common.kubernetes.objects import Job, Pod, PodFailurePolicyRule
from cumulet.controllers.job import indexes
from cumulet.controllers.pods import phase_of


class Verdict(NamedTuple):
    """The action for a failed pod: `Count`, `Ignore`, `FailIndex` or `FailJob`, with the message for `FailJob`."""

    action: str
    message: str = ""


def judge(job: Job, pod: Pod) -> Verdict:
    """The verdict of the first matching rule of the failure policy. Without a match, the failure counts."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or ()):
        reason = _match(rule, pod)
        if reason is not None:
            return Verdict(rule["action"], f"{reason} matching {rule['action']} rule at index {number}")
    return Verdict("Count")


def _match(rule: PodFailurePolicyRule, pod: Pod) -> str | None:
    """The reason why a rule matches a pod, or `None` if it does not."""
    where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    status = pod.get("status") or {}
    if (codes := rule.get("onExitCodes")) is not None:
        if phase_of(pod) != "Failed":
            return None
        for container in [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]:
            terminated = (container.get("state") or {}).get("terminated")
            if terminated is None or terminated["exitCode"] == 0:
                continue
            if codes.get("containerName") not in (None, container["name"]):
                continue
            if (terminated["exitCode"] in codes["values"]) is (codes["operator"] == "In"):
                return f"Container {container['name']} for pod {where} failed with exit code {terminated['exitCode']}"
        return None
    for pattern in rule.get("onPodConditions") or ():
        for condition in status.get("conditions") or ():
            if condition["type"] == pattern["type"] and condition["status"] == pattern.get("status", "True"):
                return f"Pod {where} has condition {condition['type']}"
    return None


def enough(job: Job, succeeded: set[int]) -> int | None:
    """The number of the first rule of the success policy that an indexed job meets."""
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        allowed = indexes.parse(rule["succeededIndexes"]) if rule.get("succeededIndexes") else None
        counted = succeeded if allowed is None else succeeded & allowed
        required = rule.get("succeededCount", len(allowed or ()))
        if required and len(counted) >= required:
            return number
    return None
