"""What a failed pod means for its job, and when enough has succeeded (`podFailurePolicy`, `successPolicy`)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from cumulet.controllers.controller import Object
from cumulet.controllers.job import indexes
from cumulet.controllers.pods import phase_of

Action = Literal["Count", "Ignore", "FailIndex", "FailJob"]


class Verdict(NamedTuple):
    """What to do about a failed pod, and for `FailJob` the message of the job's condition."""

    action: Action
    message: str = ""


def judge(job: Object, pod: Object) -> Verdict:
    """The first rule of the failure policy that matches a failed pod; without one it counts."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or ()):
        what = _matches(rule, pod)
        if what is not None:
            return Verdict(rule["action"], f"{what} matching {rule['action']} rule at index {number}")
    return Verdict("Count")


def _matches(rule: Object, pod: Object) -> str | None:
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
    for wanted in rule.get("onPodConditions") or ():
        for condition in status.get("conditions") or ():
            if condition["type"] == wanted["type"] and condition["status"] == wanted.get("status", "True"):
                return f"Pod {where} has condition {condition['type']}"
    return None


def enough(job: Object, succeeded: set[int]) -> int | None:
    """The number of the first rule of the success policy that is met, of an indexed job."""
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        wanted = indexes.parse(rule["succeededIndexes"]) if rule.get("succeededIndexes") else None
        counted = succeeded if wanted is None else succeeded & wanted
        needed = rule.get("succeededCount", len(wanted or ()))
        if needed and len(counted) >= needed:
            return number
    return None
