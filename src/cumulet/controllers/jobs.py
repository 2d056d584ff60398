"""Jobs: pods that are run until enough of them have succeeded (`pkg/controller/job`)."""

from __future__ import annotations

import asyncio

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import JOBS, PODS
from cumulet.controllers.controller import Context, Key, Object, controller_of, key_of, owner_reference
from cumulet.controllers.pods import OwnedPods, is_active, is_ready


class JobController:
    """Runs up to `parallelism` pods at once until `completions` succeeded or `backoffLimit` failed."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("job-controller")
        self._jobs = context.informer(JOBS)
        self._pods = OwnedPods(context.client, context.informer(PODS), self._events)
        self._jobs.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        context.informer(PODS).add_handler(self._pod_changed)

    def _pod_changed(self, change: str, pod: Object, _: Object | None) -> None:
        owner = controller_of(pod)
        if owner is not None and owner["kind"] == "Job":
            self.queue.add((pod["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> None:
        """One step of a job."""
        job = self._jobs.get(key[1], key[0])
        if job is None or job["metadata"].get("deletionTimestamp"):
            return
        if (ended := _ended(job)) is not None:
            await self._expire(job, ended)
            return
        spec = job["spec"]
        pods = self._pods.of(job)
        active = [pod for pod in pods if is_active(pod)]
        succeeded = sum(_phase(pod) == "Succeeded" for pod in pods)
        failed = sum(_phase(pod) == "Failed" for pod in pods)
        wanted = spec.get("completions")
        enough = succeeded >= wanted if wanted is not None else succeeded > 0 and not active
        condition: Object | None = None
        if enough:
            condition = _condition("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
            self._events.event(job, "Normal", "Completed", "Job completed")
        elif failed > spec.get("backoffLimit", 6):
            message = "Job has reached the specified backoff limit"
            condition = _condition("Failed", "BackoffLimitExceeded", message)
            self._events.event(job, "Warning", "BackoffLimitExceeded", message)
        elif self._is_late(job):
            message = "Job was active longer than specified deadline"
            condition = _condition("Failed", "DeadlineExceeded", message)
            self._events.event(job, "Warning", "DeadlineExceeded", message)
        if condition is not None or spec.get("suspend"):
            await asyncio.gather(*(self._pods.delete(job, pod) for pod in active))
            active = []
        else:
            active += await self._start(job, active, succeeded, wanted)
        await self._write_status(job, active, succeeded, failed, condition)

    async def _start(self, job: Object, active: list[Object], succeeded: int, wanted: int | None) -> list[Object]:
        parallelism = job["spec"].get("parallelism", 1)
        room = parallelism if wanted is None else min(parallelism, wanted - succeeded)
        if wanted is None and succeeded:
            room = 0  # once one of a work queue's pods succeeded, no more are started
        missing = max(room - len(active), 0)
        await asyncio.gather(*(self._pods.create(job, _pod(job)) for _ in range(missing)))
        known = {pod["metadata"]["uid"] for pod in active}
        return [pod for pod in self._pods.of(job) if is_active(pod) and pod["metadata"]["uid"] not in known]

    def _is_late(self, job: Object) -> bool:
        deadline, start = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
        if deadline is None or start is None:
            return False
        left: float = deadline - (clock.now() - clock.parse(start)).total_seconds()
        if left > 0:
            self.queue.add_after(key_of(job), left)
        return left <= 0

    async def _expire(self, job: Object, ended: str) -> None:
        """Delete a finished job when its time to live is over."""
        life = job["spec"].get("ttlSecondsAfterFinished")
        if life is None:
            return
        left = life - (clock.now() - clock.parse(ended)).total_seconds()
        if left > 0:
            self.queue.add_after(key_of(job), left)
            return
        metadata = job["metadata"]
        await self._client.delete(
            JOBS, metadata["name"], metadata["namespace"], uid=metadata["uid"], propagation_policy="Background"
        )

    async def _write_status(
        self, job: Object, active: list[Object], succeeded: int, failed: int, condition: Object | None
    ) -> None:
        old = job.get("status") or {}
        status: Object = {"startTime": old.get("startTime") or clock.rfc3339()}
        counts = {
            "active": len(active),
            "ready": sum(is_ready(pod) for pod in active),
            "succeeded": succeeded,
            "failed": failed,
        }
        status |= {name: value for name, value in counts.items() if value or name == "ready"}
        status["terminating"] = 0
        status["uncountedTerminatedPods"] = {}
        if condition is not None:
            before = "SuccessCriteriaMet" if condition["type"] == "Complete" else "FailureTarget"
            status["conditions"] = [{**condition, "type": before}, condition]
            if condition["type"] == "Complete":
                status["completionTime"] = clock.rfc3339()
        if status == old:
            return
        try:
            await self._client.update(JOBS, {**job, "status": status}, "status")
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


def _phase(pod: Object) -> str:
    phase: str = (pod.get("status") or {}).get("phase", "")
    return phase


def _ended(job: Object) -> str | None:
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            moment: str = condition["lastTransitionTime"]
            return moment
    return None


def _condition(kind: str, reason: str, message: str) -> Object:
    now = clock.rfc3339()
    times = {"lastProbeTime": now, "lastTransitionTime": now}
    return {"type": kind, "status": "True", **times, "reason": reason, "message": message}


def _pod(job: Object) -> Object:
    template = job["spec"]["template"]
    metadata = {
        name: value for name, value in (template.get("metadata") or {}).items() if name in ("labels", "annotations")
    }
    reference = owner_reference(job, "batch/v1", "Job")
    return {
        "metadata": {**metadata, "generateName": f"{job['metadata']['name']}-", "ownerReferences": [reference]},
        "spec": template["spec"],
    }
