"""Runs up to `parallelism` pods at once, until `completions` have succeeded or too many have failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import JOBS
from cumulet.common.kubernetes.objects import Container, EnvVar, Job, JobCondition, JobStatus, Pod, PodSpec
from cumulet.controllers.conditions import condition_of, status_of
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.job import indexes
from cumulet.controllers.job.account import FINALIZER, Account, failures_of, only_failed_are_replaced
from cumulet.controllers.job.policy import enough, judge
from cumulet.controllers.owned import selector_of
from cumulet.controllers.pods import (
    OwnedPods,
    deletion_rank,
    from_template,
    in_batches,
    is_active,
    is_ready,
    is_terminating,
    phase_of,
    ready_since,
)

_COMPONENT = "job-controller"
_MANAGER = "kubernetes.io/job-controller"
_INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
#: The seconds before a failed pod is replaced: the first time, then doubled each time, and at most.
_FIRST_WAIT, _LONGEST_WAIT = 10.0, 600.0

_SUCCESS, _FAILURE = "SuccessCriteriaMet", "FailureTarget"


class JobController:
    """The controller of jobs."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(first_delay=0.1)
        self._client = context.client
        self._events = context.events(_COMPONENT)
        self._jobs = context.informer(JOBS)
        self._pods = OwnedPods(context, JOBS, _COMPONENT, finalizer=FINALIZER)
        self._jobs.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._pods.notify(self.queue, selector_of)

    async def reconcile(self, key: Key) -> None:
        """Take one step of a job."""
        job = self._jobs.get(key[1], key[0])
        if job is None or job["metadata"].get("deletionTimestamp"):
            return
        if job["spec"].get("managedBy", _MANAGER) != _MANAGER:
            return
        if _is_true(job, "Complete") or _is_true(job, "Failed"):
            await self._release(job, Account(job, self._pods.of(job)))
            return
        pods = await self._pods.claim(job, selector_of(job), is_active)
        account = Account(job, pods)
        conditions = self._decide(job, account, pods)
        ending = any(item["type"] in (_SUCCESS, _FAILURE) for item in conditions)
        failure: KubernetesError | None = None
        try:
            going = [pod for pod in pods if is_active(pod)]
            if ending:
                await asyncio.gather(*(self._pods.delete(job, pod) for pod in going))
            elif job["spec"].get("suspend"):
                await asyncio.gather(*(self._drop(job, pod) for pod in going))
            else:
                await self._run(job, account, pods)
        except KubernetesError as error:
            failure = error
        await self._write_status(job, account, conditions)
        if failure is not None:
            raise failure

    # The outcome.

    def _decide(self, job: Job, account: Account, pods: list[Pod]) -> list[JobCondition]:
        """The conditions of the next status."""
        kept = [item for item in (job.get("status") or {}).get("conditions") or () if item["type"] != "Suspended"]
        suspended = condition_of(job, "Suspended")
        if not any(item["type"] in (_SUCCESS, _FAILURE) for item in kept):
            ended = self._outcome(job, account, pods)
            if ended is not None:
                kept.append(ended)
            elif job["spec"].get("suspend"):
                if suspended is None or suspended["status"] != "True":
                    suspended = _condition("Suspended", "JobSuspended", "Job suspended")
                    self._events.event(job, "Normal", "Suspended", "Job suspended")
            elif suspended is not None and suspended["status"] == "True":
                suspended = _condition("Suspended", "JobResumed", "Job resumed", "False")
                self._events.event(job, "Normal", "Resumed", "Job resumed")
        return [suspended, *kept] if suspended is not None else kept

    def _outcome(self, job: Job, account: Account, pods: list[Pod]) -> JobCondition | None:
        spec = job["spec"]
        active = [pod for pod in pods if is_active(pod)]
        if account.failure is not None:
            return _condition(_FAILURE, "PodFailurePolicy", account.failure)
        if account.indexed and (rule := enough(job, account.succeeded_indexes)) is not None:
            return _condition(_SUCCESS, "SuccessPolicy", f"Matched rules at index {rule}")
        per_index = spec.get("backoffLimitPerIndex")
        if per_index is not None:
            for index in range(spec.get("completions") or 0):
                if len(failures_of(pods, index)) > per_index:
                    account.failed_indexes.add(index)
            account.failed_indexes -= account.succeeded_indexes
        if account.failed > spec.get("backoffLimit", 6 if per_index is None else 2**31 - 1):
            return _condition(_FAILURE, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        if self._is_late(job):
            return _condition(_FAILURE, "DeadlineExceeded", "Job was active longer than specified deadline")
        if account.failed_indexes and len(account.failed_indexes) > spec.get("maxFailedIndexes", 2**31 - 1):
            message = "Job has exceeded the specified maximal number of failed indexes"
            return _condition(_FAILURE, "MaxFailedIndexesExceeded", message)
        completions = spec.get("completions")
        reached = "Reached expected number of succeeded pods"
        if completions is None:
            if account.succeeded and not active:
                return _condition(_SUCCESS, "CompletionsReached", reached)
        elif account.succeeded >= completions:
            return _condition(_SUCCESS, "CompletionsReached", reached)
        elif account.failed_indexes and len(account.failed_indexes | account.succeeded_indexes) >= completions:
            return _condition(_FAILURE, "FailedIndexes", "Job has failed indexes")
        return None

    def _is_late(self, job: Job) -> bool:
        deadline, start = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
        if deadline is None or start is None or job["spec"].get("suspend"):
            return False
        left = deadline - (clock.now() - clock.parse(start)).total_seconds()
        if left > 0:
            self.queue.add_after(key_of(job), left)
        return left <= 0

    # Pods.

    async def _run(self, job: Job, account: Account, pods: list[Pod]) -> None:
        """Create pods up to the parallelism, or delete some if it was lowered."""
        spec = job["spec"]
        active = [pod for pod in pods if is_active(pod)]
        parallelism, completions = spec.get("parallelism", 1), spec.get("completions")
        if completions is None:
            # A job without completions is a work queue: after the first success, no more pods are created.
            room = len(active) if account.succeeded else parallelism
        else:
            room = min(parallelism, completions - account.succeeded)
        surplus = len(active) - min(room, parallelism)
        if surplus > 0:
            deleted = sorted(active, key=deletion_rank)[:surplus]
            await asyncio.gather(*(self._drop(job, pod) for pod in deleted))
            return
        missing = room - len(active)
        if only_failed_are_replaced(job):
            missing -= sum(is_terminating(pod) and phase_of(pod) not in ("Succeeded", "Failed") for pod in pods)
        if missing <= 0:
            return
        if account.indexed:
            await self._start_indexes(job, account, pods, missing)
            return
        left = _wait_left([pod for pod in pods if phase_of(pod) in ("Succeeded", "Failed")], job)
        if left > 0:
            self.queue.add_after(key_of(job), left)
            return
        pod = _pod(job)
        await in_batches(missing, lambda _: self._pods.create(job, pod))

    async def _start_indexes(self, job: Job, account: Account, pods: list[Pod], missing: int) -> None:
        busy = {indexes.index_of(pod) for pod in pods if is_active(pod)}
        if only_failed_are_replaced(job):
            busy |= {indexes.index_of(pod) for pod in pods if is_terminating(pod)}
        per_index = job["spec"].get("backoffLimitPerIndex") is not None
        ended = [pod for pod in pods if phase_of(pod) in ("Succeeded", "Failed")]
        chosen: list[int] = []
        for index in range(job["spec"].get("completions") or 0):
            if index in busy or index in account.succeeded_indexes or index in account.failed_indexes:
                continue
            mine = failures_of(pods, index) if per_index else ended
            left = _wait_left(mine, job)
            if left > 0:
                self.queue.add_after(key_of(job), left)
                if per_index:
                    continue
                break
            chosen.append(index)
            if len(chosen) == missing:
                break

        def make(number: int) -> Awaitable[Pod]:
            index = chosen[number]
            failed = len(failures_of(pods, index)) if per_index else None
            return self._pods.create(job, _pod(job, index, failed))

        await in_batches(len(chosen), make)

    # Status.

    async def _write_status(self, job: Job, account: Account, conditions: list[JobCondition]) -> None:
        old = job.get("status") or {}
        pods = self._pods.of(job)
        active = [pod for pod in pods if is_active(pod)]
        terminating = [pod for pod in pods if is_terminating(pod) and phase_of(pod) not in ("Succeeded", "Failed")]
        status = account.status()
        if not job["spec"].get("suspend"):
            status["startTime"] = old.get("startTime") or clock.rfc3339()
        status["terminating"] = len(terminating)
        status["ready"] = sum(is_ready(pod) for pod in active)
        if active:
            status["active"] = len(active)
        counted = not any(account.uncounted.values()) and not account.ended
        if counted and not active and not terminating:
            conditions = conditions + self._finish(job, status, conditions)
        if conditions:
            status["conditions"] = conditions
        if status != old:
            try:
                job = await self._client.update_status(JOBS, job, status)
            except KubernetesError as error:
                if error.code not in (404, 409):
                    raise
                return
            if "startTime" in status and "startTime" not in old and job["spec"].get("activeDeadlineSeconds"):
                self.queue.add_after(key_of(job), job["spec"]["activeDeadlineSeconds"])
        await self._release(job, account)

    def _finish(self, job: Job, status: JobStatus, conditions: list[JobCondition]) -> list[JobCondition]:
        """The final condition, once no pod runs."""
        for item in conditions:
            if item["type"] == _SUCCESS:
                status["completionTime"] = clock.rfc3339()
                self._events.event(job, "Normal", "Completed", "Job completed")
                return [_condition("Complete", item["reason"], item["message"])]
            if item["type"] == _FAILURE:
                self._events.event(job, "Warning", item["reason"], item["message"])
                return [_condition("Failed", item["reason"], item["message"])]
        return []

    async def _release(self, job: Job, account: Account) -> None:
        """Remove the finalizer of ended pods, which the status has counted."""
        await asyncio.gather(*(self._untrack(job, pod) for pod in account.ended))

    async def _drop(self, job: Job, pod: Pod) -> None:
        """Delete a surplus pod without counting it as failed."""
        if await self._untrack(job, pod):
            await self._pods.delete(job, pod)

    async def _untrack(self, owner: Job, pod: Pod) -> bool:
        """Remove the finalizer of a pod. Returns whether that succeeded."""
        left = [item for item in pod["metadata"].get("finalizers") or () if item != FINALIZER]
        metadata = {
            "uid": pod["metadata"]["uid"],
            "finalizers": left or None,
            "resourceVersion": pod["metadata"]["resourceVersion"],
        }
        try:
            await self._pods.change(owner, pod, {"metadata": metadata})
        except KubernetesError as error:
            if error.code == 409:
                self.queue.add(key_of(owner))
            elif error.code != 404:
                raise
            return False
        return True


def _is_true(job: Job, kind: str) -> bool:
    return status_of(job, kind) == "True"


def _condition(kind: str, reason: str, message: str, status: str = "True") -> JobCondition:
    now = clock.rfc3339()
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": now,
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    }


def _wait_left(ended: list[Pod], job: Job) -> float:
    """The seconds until the next pod can be created, by the number of failures since the last success."""
    moments = sorted(((_finished(pod), phase_of(pod) == "Failed", pod) for pod in ended), key=lambda item: item[0])
    failures = 0
    last = 0.0
    for moment, failed, pod in moments:
        if not failed:
            failures = 0
        elif judge(job, pod).action != "Ignore":
            failures, last = failures + 1, moment
    if not failures:
        return 0.0
    wait = min(_FIRST_WAIT * 2.0 ** min(failures - 1, 30), _LONGEST_WAIT)
    return last + wait - clock.now().timestamp()


def _finished(pod: Pod) -> float:
    """The end of a pod: of its last container, or else the last transition of its condition Ready."""
    moments = [
        terminated["finishedAt"]
        for item in (pod.get("status") or {}).get("containerStatuses") or ()
        if (terminated := (item.get("state") or {}).get("terminated")) and terminated.get("finishedAt")
    ]
    text = max(moments) if moments else ready_since(pod) or pod["metadata"]["creationTimestamp"]
    return clock.parse(text).timestamp()


def _pod(job: Job, index: int | None = None, failures: int | None = None) -> Pod:
    """A pod of a job. `failures` is the number of failures of its index."""
    name = job["metadata"]["name"]
    prefix = f"{name}-" if index is None else f"{name}-{index}-"
    pod = from_template(job["spec"]["template"], prefix=prefix)
    metadata = pod["metadata"]
    metadata["finalizers"] = [*metadata.get("finalizers", []), FINALIZER]
    if index is None:
        return pod
    metadata["labels"] = {**metadata.get("labels", {}), indexes.LABEL: str(index)}
    metadata["annotations"] = {**metadata.get("annotations", {}), indexes.LABEL: str(index)}
    if failures is not None:
        metadata["annotations"][_INDEX_FAILURES] = str(failures)
    variable: EnvVar = {
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{indexes.LABEL}']"}},
    }
    spec: PodSpec = {**pod["spec"], "hostname": f"{name}-{index}"}
    if spec.get("containers"):
        spec["containers"] = [_with_variable(container, variable) for container in spec["containers"]]
    if spec.get("initContainers"):
        spec["initContainers"] = [_with_variable(container, variable) for container in spec["initContainers"]]
    return {**pod, "spec": spec}


def _with_variable(container: Container, variable: EnvVar) -> Container:
    known = container.get("env") or []
    if any(item["name"] == variable["name"] for item in known):
        return container
    return {**container, "env": [*known, variable]}
