"""Pods that no job counts any more lose their finalizer, so that they can be deleted (`syncOrphanPod`).

A pod of a job has it until the job's status has counted it. A pod that the job was made to let go, by its labels, by
`kubectl delete --cascade=orphan` or because the job is gone, would otherwise never end, and neither would its namespace.
"""

from __future__ import annotations

from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import JOBS, MERGE_PATCH, PODS
from cumulet.controllers.controller import Context, Key, Object, controller_of, key_of
from cumulet.controllers.job.account import FINALIZER, is_tracked


class OrphanPodController:
    """One key a pod that has the finalizer and may belong to no job."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._jobs = context.informer(JOBS)
        self._pods = context.informer(PODS)
        self._pods.add_handler(self._pod_changed)
        self._jobs.add_handler(self._job_changed)

    def _pod_changed(self, change: str, pod: Object, old: Object | None) -> None:
        if change != "DELETED" and is_tracked(pod) and not _is_of_a_job(pod):
            self.queue.add(key_of(pod))
        elif change == "ADDED" and is_tracked(pod):
            self.queue.add(key_of(pod))  # its job may have gone while nobody looked

    def _job_changed(self, change: str, job: Object, old: Object | None) -> None:
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
        metadata = {name: pod["metadata"][name] for name in ("uid", "resourceVersion")} | {"finalizers": left or None}
        try:
            await self._client.patch(PODS, key[1], {"metadata": metadata}, key[0], content_type=MERGE_PATCH)
        except KubernetesError as error:
            if error.code != 404:  # a conflict too is tried again, by then with the newer pod
                raise

    def _is_counted(self, pod: Object) -> bool:
        """Whether a job, ours or another controller's, still has the pod, or another kind of owner has."""
        owner = controller_of(pod)
        if owner is None:
            return False
        if not _is_of_a_job(pod):
            return True
        job = self._jobs.get(owner["name"], pod["metadata"]["namespace"])
        if job is None or job["metadata"]["uid"] != owner["uid"]:
            return False
        return not job["metadata"].get("deletionTimestamp")


def _is_of_a_job(pod: Object) -> bool:
    owner = controller_of(pod)
    return owner is not None and (owner["kind"], owner["apiVersion"]) == (JOBS.kind, JOBS.api_version)
