"""Runs up to `parallelism` pods at once until `completions` succeeded or too many failed."""

from __future__ import annotations

import asyncio
from typing import Any

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import JOBS
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.job import indexes
from cumulet.controllers.job.account import FINALIZER, Account, failures_of, only_failed_are_replaced
from cumulet.controllers.job.policy import enough, judge
from cumulet.controllers.owned import selector_of
from cumulet.controllers.pods import (
    OwnedPods,
    condition_of,
    deletion_rank,
    from_template,
    in_batches,
    is_active,
    is_ready,
    is_terminating,
    phase_of,
)

_COMPONENT = "job-controller"
_MANAGER = "kubernetes.io/job-controller"
_INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
#: Seconds before a pod that failed is replaced: the first time, doubled each time after, and at most.
_FIRST_WAIT, _LONGEST_WAIT = 10.0, 600.0

_SUCCESS, _FAILURE = "SuccessCriteriaMet", "FailureTarget"


class JobController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(first_delay=0.1)
        self._client = context.client
        self._events = context.events(_COMPONENT)
        self._jobs = context.informer(JOBS)
        self._pods = OwnedPods(context, JOBS, _COMPONENT, finalizer=FINALIZER)
        self._jobs.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._pods.notify(self.queue)

    async def reconcile(self, key: Key) -> None:
        """One step of a job."""
        job = self._jobs.get(key[1], key[0])
        if job is None or job["metadata"].get("deletionTimestamp"):
            return
        if job["spec"].get("managedBy", _MANAGER) != _MANAGER:
            return
        if _is_true(job, "Complete") or _is_true(job, "Failed"):
            await self._settle(job, Account(job, self._pods.of(job)))
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

    # Whether it has ended.

    def _decide(self, job: Object, account: Account, pods: list[Object]) -> list[Object]:
        """The conditions that the job gets now."""
        kept = [item for item in (job.get("status") or {}).get("conditions") or () if item["type"] != "Suspended"]
        suspended = condition_of(job, "Suspended")
        if not any(item["type"] in (_SUCCESS, _FAILURE) for item in kept):
            ended = self._outcome(job, account, pods)
            if ended is not None:
                kept.append(ended)
            elif job["spec"].get("suspend"):
                if suspended.get("status") != "True":
                    suspended = _condition("Suspended", "JobSuspended", "Job suspended")
                    self._events.event(job, "Normal", "Suspended", "Job suspended")
            elif suspended.get("status") == "True":
                suspended = {**_condition("Suspended", "JobResumed", "Job resumed"), "status": "False"}
                self._events.event(job, "Normal", "Resumed", "Job resumed")
        return [suspended, *kept] if suspended else kept

    def _outcome(self, job: Object, account: Account, pods: list[Object]) -> Object | None:
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
        wanted = spec.get("completions")
        reached = "Reached expected number of succeeded pods"
        if wanted is None:
            if account.succeeded and not active:
                return _condition(_SUCCESS, "CompletionsReached", reached)
        elif account.succeeded >= wanted:
            return _condition(_SUCCESS, "CompletionsReached", reached)
        elif account.failed_indexes and len(account.failed_indexes | account.succeeded_indexes) >= wanted:
            return _condition(_FAILURE, "FailedIndexes", "Job has failed indexes")
        return None

    def _is_late(self, job: Object) -> bool:
        deadline, start = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
        if deadline is None or start is None or job["spec"].get("suspend"):
            return False
        left: float = deadline - (clock.now() - clock.parse(start)).total_seconds()
        if left > 0:
            self.queue.add_after(key_of(job), left)
        return left <= 0

    # Its pods.

    async def _run(self, job: Object, account: Account, pods: list[Object]) -> None:
        """Start pods up to what may run at once, or stop some where that was lowered."""
        spec = job["spec"]
        active = [pod for pod in pods if is_active(pod)]
        parallelism, wanted = spec.get("parallelism", 1), spec.get("completions")
        if wanted is None:
            # Once one pod of a work queue has succeeded, no more are started.
            room = len(active) if account.succeeded else parallelism
        else:
            room = min(parallelism, wanted - account.succeeded)
        surplus = len(active) - min(room, parallelism)
        if surplus > 0:
            going = sorted(active, key=deletion_rank)[:surplus]
            await asyncio.gather(*(self._drop(job, pod) for pod in going))
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

    async def _start_indexes(self, job: Object, account: Account, pods: list[Object], missing: int) -> None:
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

        def make(number: int) -> Any:
            index = chosen[number]
            failed = len(failures_of(pods, index)) if per_index else None
            return self._pods.create(job, _pod(job, index, failed))

        await in_batches(len(chosen), make)

    # Its status.

    async def _write_status(self, job: Object, account: Account, conditions: list[Object]) -> None:
        old = job.get("status") or {}
        pods = self._pods.of(job)
        active = [pod for pod in pods if is_active(pod)]
        terminating = [pod for pod in pods if is_terminating(pod) and phase_of(pod) not in ("Succeeded", "Failed")]
        status: Object = account.status()
        if not job["spec"].get("suspend"):
            status["startTime"] = old.get("startTime") or clock.rfc3339()
        status |= {"terminating": len(terminating), "ready": sum(is_ready(pod) for pod in active)}
        if active:
            status["active"] = len(active)
        counted = not any(account.uncounted.values()) and not account.ended
        if counted and not active and not terminating:
            conditions = conditions + self._finish(job, status, conditions)
        if conditions:
            status["conditions"] = conditions
        if status != old:
            try:
                job = await self._client.update(JOBS, {**job, "status": status}, "status")
            except KubernetesError as error:
                if error.code not in (404, 409):
                    raise
                return
            if "startTime" in status and "startTime" not in old and job["spec"].get("activeDeadlineSeconds"):
                self.queue.add_after(key_of(job), job["spec"]["activeDeadlineSeconds"])
        await self._settle(job, account)

    def _finish(self, job: Object, status: Object, conditions: list[Object]) -> list[Object]:
        """The last condition, once no pod is left that runs."""
        for item in conditions:
            if item["type"] == _SUCCESS:
                status["completionTime"] = clock.rfc3339()
                self._events.event(job, "Normal", "Completed", "Job completed")
                return [_condition("Complete", item["reason"], item["message"])]
            if item["type"] == _FAILURE:
                self._events.event(job, "Warning", item["reason"], item["message"])
                return [_condition("Failed", item["reason"], item["message"])]
        return []

    async def _settle(self, job: Object, account: Account) -> None:
        """The status has them: the pods that ended may be deleted from now on."""
        await asyncio.gather(*(self._untrack(job, pod) for pod in account.ended))

    async def _drop(self, job: Object, pod: Object) -> None:
        """Delete a pod that is not wanted any more, and is not counted as failed for that."""
        if await self._untrack(job, pod):
            await self._pods.delete(job, pod)

    async def _untrack(self, owner: Object, pod: Object) -> bool:
        """Whether the pod could be let go."""
        left = [item for item in pod["metadata"].get("finalizers") or () if item != FINALIZER]
        metadata = {"uid": pod["metadata"]["uid"], "finalizers": left or None}
        metadata["resourceVersion"] = pod["metadata"]["resourceVersion"]
        try:
            await self._pods.change(owner, pod, {"metadata": metadata})
        except KubernetesError as error:
            if error.code == 409:
                self.queue.add(key_of(owner))
            elif error.code != 404:
                raise
            return False
        return True


def _is_true(job: Object, kind: str) -> bool:
    return condition_of(job, kind).get("status") == "True"


def _condition(kind: str, reason: str, message: str) -> Object:
    now = clock.rfc3339()
    times = {"lastProbeTime": now, "lastTransitionTime": now}
    return {"type": kind, "status": "True", **times, "reason": reason, "message": message}


def _wait_left(ended: list[Object], job: Object) -> float:
    """Seconds until a pod may be started, by the failures since the last success."""
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


def _finished(pod: Object) -> float:
    """When a pod ended: its last container, else when it was last seen to change."""
    moments = [
        terminated["finishedAt"]
        for item in (pod.get("status") or {}).get("containerStatuses") or ()
        if (terminated := (item.get("state") or {}).get("terminated")) and terminated.get("finishedAt")
    ]
    ready = condition_of(pod, "Ready").get("lastTransitionTime")
    text = max(moments) if moments else ready or pod["metadata"]["creationTimestamp"]
    return clock.parse(text).timestamp()


def _pod(job: Object, index: int | None = None, failures: int | None = None) -> Object:
    name = job["metadata"]["name"]
    prefix = f"{name}-" if index is None else f"{name}-{index}-"
    pod = from_template(job["spec"]["template"], prefix=prefix)
    metadata = pod["metadata"]
    metadata["finalizers"] = [*metadata.get("finalizers", ()), FINALIZER]
    if index is None:
        return pod
    metadata["labels"] = {**metadata.get("labels", {}), indexes.LABEL: str(index)}
    metadata["annotations"] = {**metadata.get("annotations", {}), indexes.LABEL: str(index)}
    if failures is not None:
        metadata["annotations"][_INDEX_FAILURES] = str(failures)
    variable = {
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{indexes.LABEL}']"}},
    }
    spec = {**pod["spec"], "hostname": f"{name}-{index}"}
    for part in ("containers", "initContainers"):
        if spec.get(part):
            spec[part] = [_with_variable(container, variable) for container in spec[part]]
    return {**pod, "spec": spec}


def _with_variable(container: Object, variable: Object) -> Object:
    known = container.get("env") or []
    if any(item["name"] == variable["name"] for item in known):
        return container
    return {**container, "env": [*known, variable]}
