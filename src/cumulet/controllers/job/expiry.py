"""Deletes jobs that have ended when their time to live is over (`pkg/controller/ttlafterfinished`)."""

from __future__ import annotations

from cumulet.common import clock
from cumulet.common.kubernetes import WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import JOBS
from cumulet.common.kubernetes.objects import Job
from cumulet.controllers.conditions import condition_of
from cumulet.controllers.controller import Context, Key, key_of


class ExpiryController:
    """The controller of the time to live of jobs."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._jobs = context.informer(JOBS)
        self._jobs.add_handler(self._job_changed)

    def _job_changed(self, change: str, job: Job, old: Job | None) -> None:
        if change != "DELETED" and job["spec"].get("ttlSecondsAfterFinished") is not None:
            self.queue.add(key_of(job))

    async def reconcile(self, key: Key) -> None:
        """Delete a job whose time to live is over, or queue it again for that time."""
        job = self._jobs.get(key[1], key[0])
        if job is None or job["metadata"].get("deletionTimestamp"):
            return
        life = job["spec"].get("ttlSecondsAfterFinished")
        ended = next(
            (
                condition["lastTransitionTime"]
                for condition in (condition_of(job, "Complete"), condition_of(job, "Failed"))
                if condition is not None and condition["status"] == "True"
            ),
            None,
        )
        if life is None or ended is None:
            return
        left = life - (clock.now() - clock.parse(ended)).total_seconds()
        if left > 0:
            self.queue.add_after(key, left)
            return
        metadata = job["metadata"]
        with suppress_stale():
            await self._client.delete(
                JOBS, metadata["name"], metadata["namespace"], uid=metadata["uid"], propagation_policy="Foreground"
            )
