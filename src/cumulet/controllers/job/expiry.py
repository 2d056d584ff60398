"""Deletes jobs that have ended when their time to live is over (`pkg/controller/ttlafterfinished`)."""

from __future__ import annotations

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import JOBS
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.pods import condition_of


class ExpiryController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._jobs = context.informer(JOBS)
        self._jobs.add_handler(self._job_changed)

    def _job_changed(self, change: str, job: Object, old: Object | None) -> None:
        if change != "DELETED" and job["spec"].get("ttlSecondsAfterFinished") is not None:
            self.queue.add(key_of(job))

    async def reconcile(self, key: Key) -> None:
        """Delete a job whose time is over, or come back then."""
        job = self._jobs.get(key[1], key[0])
        if job is None or job["metadata"].get("deletionTimestamp"):
            return
        life = job["spec"].get("ttlSecondsAfterFinished")
        ended = next(
            (
                condition["lastTransitionTime"]
                for condition in (condition_of(job, "Complete"), condition_of(job, "Failed"))
                if condition.get("status") == "True"
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
        try:
            await self._client.delete(
                JOBS, metadata["name"], metadata["namespace"], uid=metadata["uid"], propagation_policy="Foreground"
            )
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise
