"""Which pods of a job have ended and how, kept in the job's status, so that a pod may be deleted once it is counted.

A pod has a finalizer until it is counted. First its uid is written to `uncountedTerminatedPods`, then the finalizer is
taken away, then the uid becomes one more in the count. A stop between any two of these loses and doubles nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.controllers.controller import Object
from cumulet.controllers.job import indexes
from cumulet.controllers.job.policy import judge
from cumulet.controllers.pods import is_terminating, phase_of

FINALIZER = "batch.kubernetes.io/job-tracking"


def is_tracked(pod: Object) -> bool:
    """It is not counted yet."""
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


class Account:
    """The counts of one job, from its status and its pods."""

    def __init__(self, job: Object, pods: list[Object]) -> None:
        status = job.get("status") or {}
        uncounted = status.get("uncountedTerminatedPods") or {}
        self.job = job
        self.indexed = job["spec"].get("completionMode") == "Indexed"
        self._counted = {"succeeded": status.get("succeeded", 0), "failed": status.get("failed", 0)}
        self.uncounted: dict[str, list[str]] = {
            kind: list(uncounted.get(kind) or ()) for kind in ("succeeded", "failed")
        }
        self.succeeded_indexes = indexes.parse(status.get("completedIndexes")) if self.indexed else set()
        self.failed_indexes = indexes.parse(status.get("failedIndexes")) if self.indexed else set()
        self._pods = pods
        tracked = {pod["metadata"]["uid"] for pod in pods if is_tracked(pod)}
        for kind, uids in self.uncounted.items():
            done = [uid for uid in uids if uid not in tracked]
            self._counted[kind] += 0 if self.indexed and kind == "succeeded" else len(done)
            uids[:] = [uid for uid in uids if uid in tracked]
        known = {uid for uids in self.uncounted.values() for uid in uids}
        self.failure: str | None = None
        for pod in pods:
            if is_tracked(pod):
                self._look_at(pod, pod["metadata"]["uid"] in known)
        if self.indexed:
            completions = job["spec"].get("completions") or 0
            self.succeeded_indexes &= set(range(completions))
            self._counted["succeeded"] = len(self.succeeded_indexes)

    def _look_at(self, pod: Object, known: bool) -> None:
        uid = pod["metadata"]["uid"]
        if phase_of(pod) == "Succeeded":
            if self.indexed:
                index = indexes.index_of(pod)
                if index is not None:
                    self.succeeded_indexes.add(index)
            if not known:
                self.uncounted["succeeded"].append(uid)
        elif self.has_failed(pod):
            verdict = judge(self.job, pod)
            if verdict.action == "FailJob" and self.failure is None:
                self.failure = verdict.message
            if verdict.action == "FailIndex" and (index := indexes.index_of(pod)) is not None:
                self.failed_indexes.add(index)
            if not known and verdict.action != "Ignore":
                self.uncounted["failed"].append(uid)

    def has_failed(self, pod: Object) -> bool:
        """Whether a pod counts as failed: one that is being deleted already does, unless only failed ones are replaced."""
        if phase_of(pod) == "Failed":
            return True
        return is_terminating(pod) and phase_of(pod) != "Succeeded" and not only_failed_are_replaced(self.job)

    @property
    def ended(self) -> list[Object]:
        """The pods whose finalizer can go once the status is written."""
        return [
            pod
            for pod in self._pods
            if is_tracked(pod) and (phase_of(pod) in ("Succeeded", "Failed") or self.has_failed(pod))
        ]

    @property
    def succeeded(self) -> int:
        """How many succeeded; of an indexed job, how many indexes."""
        counted: int = self._counted["succeeded"]
        return counted + (0 if self.indexed else len(self.uncounted["succeeded"]))

    @property
    def failed(self) -> int:
        """How many failed."""
        counted: int = self._counted["failed"]
        return counted + len(self.uncounted["failed"])

    def status(self) -> Object:
        """The counts as the status has them; what is zero or empty is left out."""
        found: Object = {
            "succeeded": self._counted["succeeded"],
            "failed": self._counted["failed"],
            "uncountedTerminatedPods": {kind: uids for kind, uids in self.uncounted.items() if uids},
        }
        if self.indexed:
            found["completedIndexes"] = indexes.render(self.succeeded_indexes)
            if self.job["spec"].get("backoffLimitPerIndex") is not None:
                found["failedIndexes"] = indexes.render(self.failed_indexes)
        kept = ("uncountedTerminatedPods",)
        return {name: value for name, value in found.items() if value or name in kept}


def only_failed_are_replaced(job: Object) -> bool:
    """Whether a pod that is being deleted is waited for before it counts and another takes its place."""
    default = "Failed" if job["spec"].get("podFailurePolicy") else "TerminatingOrFailed"
    return bool(job["spec"].get("podReplacementPolicy", default) == "Failed")


def failures_of(pods: Iterable[Object], index: int) -> list[Object]:
    """The failed pods of an index."""
    return [pod for pod in pods if phase_of(pod) == "Failed" and indexes.index_of(pod) == index]
