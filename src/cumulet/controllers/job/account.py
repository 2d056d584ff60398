"""Counts the ended pods of a job in its status, so that a counted pod can be deleted.

A pod has a finalizer until it is counted. First its UID is written to `uncountedTerminatedPods`, then the finalizer is
removed, then the count replaces the UID. A crash between any two steps neither loses nor repeats a pod.
"""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.common.kubernetes.objects import Job, JobStatus, Pod, UncountedTerminatedPods
from cumulet.controllers.job import indexes
from cumulet.controllers.job.policy import judge
from cumulet.controllers.pods import is_terminating, phase_of

FINALIZER = "batch.kubernetes.io/job-tracking"


def is_tracked(pod: Pod) -> bool:
    """Whether a pod is not counted yet."""
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


class Account:
    """The counts of one job, computed from its status and its pods."""

    def __init__(self, job: Job, pods: list[Pod]) -> None:
        status = job.get("status") or {}
        uncounted = status.get("uncountedTerminatedPods") or {}
        self.job = job
        self.indexed = job["spec"].get("completionMode") == "Indexed"
        self._counted = {"succeeded": status.get("succeeded", 0), "failed": status.get("failed", 0)}
        self.uncounted: dict[str, list[str]] = {
            "succeeded": list(uncounted.get("succeeded") or ()),
            "failed": list(uncounted.get("failed") or ()),
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
                self._examine(pod, pod["metadata"]["uid"] in known)
        if self.indexed:
            completions = job["spec"].get("completions") or 0
            self.succeeded_indexes &= set(range(completions))
            self._counted["succeeded"] = len(self.succeeded_indexes)

    def _examine(self, pod: Pod, known: bool) -> None:
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

    def has_failed(self, pod: Pod) -> bool:
        """Whether a pod counts as failed. A terminating pod does too, unless only failed pods are replaced."""
        if phase_of(pod) == "Failed":
            return True
        return is_terminating(pod) and phase_of(pod) != "Succeeded" and not only_failed_are_replaced(self.job)

    @property
    def ended(self) -> list[Pod]:
        """The pods whose finalizer can be removed once the status is written."""
        return [
            pod
            for pod in self._pods
            if is_tracked(pod) and (phase_of(pod) in ("Succeeded", "Failed") or self.has_failed(pod))
        ]

    @property
    def succeeded(self) -> int:
        """The number of succeeded pods, or of succeeded indexes of an indexed job."""
        return self._counted["succeeded"] + (0 if self.indexed else len(self.uncounted["succeeded"]))

    @property
    def failed(self) -> int:
        """The number of failed pods."""
        return self._counted["failed"] + len(self.uncounted["failed"])

    def status(self) -> JobStatus:
        """The counts as fields of the status. Zero and empty fields are omitted."""
        uncounted: UncountedTerminatedPods = {}
        if self.uncounted["succeeded"]:
            uncounted["succeeded"] = self.uncounted["succeeded"]
        if self.uncounted["failed"]:
            uncounted["failed"] = self.uncounted["failed"]
        status: JobStatus = {"uncountedTerminatedPods": uncounted}
        if self._counted["succeeded"]:
            status["succeeded"] = self._counted["succeeded"]
        if self._counted["failed"]:
            status["failed"] = self._counted["failed"]
        if self.indexed and self.succeeded_indexes:
            status["completedIndexes"] = indexes.render(self.succeeded_indexes)
        if self.indexed and self.failed_indexes and self.job["spec"].get("backoffLimitPerIndex") is not None:
            status["failedIndexes"] = indexes.render(self.failed_indexes)
        return status


def only_failed_are_replaced(job: Job) -> bool:
    """Whether a terminating pod counts and is replaced only after it has ended."""
    default = "Failed" if job["spec"].get("podFailurePolicy") else "TerminatingOrFailed"
    return job["spec"].get("podReplacementPolicy", default) == "Failed"


def failures_of(pods: Iterable[Pod], index: int) -> list[Pod]:
    """The failed pods of an index."""
    return [pod for pod in pods if phase_of(pod) == "Failed" and indexes.index_of(pod) == index]
