"""Removes the finalizer of pods that no job counts, so that they can be deleted (`syncOrphanPod`).

A pod of a job has the finalizer until the status of the job has counted it. Without this controller, a pod that loses its
job could never be deleted, and neither could its namespace. A pod loses its job by a change of labels, by
`kubectl delete --cascade=orphan`, or by the deletion of the job.
"""

from __future__ import annotations

from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import JOBS, MERGE_PATCH, PODS
from cumulet.common.kubernetes.objects import Job, Pod
from cumulet.controllers.controller import Context, Key, controller_of, key_of
from cumulet.controllers.job.account import FINALIZER, is_tracked


class OrphanPodController:
    """The controller of orphan pods. Its keys are those of pods with the finalizer."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._jobs = context.informer(JOBS)
        self._pods = context.informer(PODS)
        self._pods.add_handler(self._pod_changed)
        self._jobs.add_handler(self._job_changed)

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        if change != "DELETED" and is_tracked(pod) and not _is_of_a_job(pod):
            self.queue.add(key_of(pod))
        elif change == "ADDED" and is_tracked(pod):
            self.queue.add(key_of(pod))  # its job may have been deleted while no controller ran

    def _job_changed(self, change: str, job: Job, old: Job | None) -> None:
        if change == "DELETED" or job["metadata"].get("deletionTimestamp"):
            for pod in self._pods.indexed("controller", job["metadata"]["uid"]):
                if is_tracked(pod):
                    self.queue.add(key_of(pod))

    async def reconcile(self, key: Key) -> None:
        """Remove the finalizer of a pod that no job counts."""
        pod = self._pods.get(key[1], key[0])
        if pod is None or not is_tracked(pod) or self._is_counted(pod):
            return
        left = [item for item in pod["metadata"].get("finalizers") or () if item != FINALIZER]
        metadata = {
            "uid": pod["metadata"]["uid"],
            "resourceVersion": pod["metadata"]["resourceVersion"],
            "finalizers": left or None,
        }
        try:
            await self._client.patch(PODS, key[1], {"metadata": metadata}, key[0], content_type=MERGE_PATCH)
        except KubernetesError as error:
            if error.code != 404:  # a conflict is retried with the newer version of the pod
                raise

    def _is_counted(self, pod: Pod) -> bool:
        """Whether the pod still has an owner: a job of any controller, or another kind."""
        owner = controller_of(pod)
        if owner is None:
            return False
        if not _is_of_a_job(pod):
            return True
        job = self._jobs.get(owner["name"], pod["metadata"]["namespace"])
        if job is None or job["metadata"]["uid"] != owner["uid"]:
            return False
        return not job["metadata"].get("deletionTimestamp")


def _is_of_a_job(pod: Pod) -> bool:
    owner = controller_of(pod)
    return owner is not None and (owner["kind"], owner["apiVersion"]) == (JOBS.kind, JOBS.api_version)
