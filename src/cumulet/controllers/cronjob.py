"""Cron jobs: a job at each time of a schedule (`pkg/controller/cronjob`, version 2)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import CRONJOBS, JOBS
from cumulet.controllers.controller import Context, Key, Object, controller_of, key_of
from cumulet.controllers.cron import Schedule, parse
from cumulet.controllers.owned import Owned
from cumulet.controllers.pods import condition_of

_SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
#: More missed times than this are told of: the clock may have jumped, or the controller been away.
_MANY = 100
#: What is due is started a moment later, so that the clock has reached the time for certain.
_LITTLE = 0.1


class CronJobController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("cronjob-controller")
        self._cronjobs = context.informer(CRONJOBS)
        self._jobs = Owned(context, JOBS, CRONJOBS)
        self._cronjobs.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._jobs.informer.add_handler(self._job_changed)

    def _job_changed(self, change: str, job: Object, old: Object | None) -> None:
        owner = controller_of(job)
        if owner is not None and owner["kind"] == CRONJOBS.kind:
            self.queue.add((job["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> None:
        """Note what ended, forget old jobs, start what is due, come back when the next is."""
        cronjob = self._cronjobs.get(key[1], key[0])
        if cronjob is None:
            return
        status = dict(cronjob.get("status") or {})
        jobs = self._jobs.of(cronjob)
        self._note_ended(cronjob, jobs, status)
        await self._forget_old(cronjob, jobs)
        try:
            if not cronjob["metadata"].get("deletionTimestamp") and not cronjob["spec"].get("suspend"):
                await self._run(cronjob, status)
        finally:
            await self._write_status(cronjob, status)

    def _note_ended(self, cronjob: Object, jobs: list[Object], status: Object) -> None:
        active = []
        for job in jobs:
            if ended := ended_as(job):
                if any(item["uid"] == job["metadata"]["uid"] for item in status.get("active") or ()):
                    message = f"Saw completed job: {job['metadata']['name']}, condition: {ended}"
                    self._events.event(cronjob, "Normal", "SawCompletedJob", message)
                done = (job.get("status") or {}).get("completionTime")
                if ended == "Complete" and done and done > status.get("lastSuccessfulTime", ""):
                    status["lastSuccessfulTime"] = done
            else:
                active.append(_reference(job))
        status["active"] = sorted(active, key=lambda item: str(item["name"]))

    async def _forget_old(self, cronjob: Object, jobs: list[Object]) -> None:
        spec = cronjob["spec"]
        for outcome, limit in (
            ("Complete", spec.get("successfulJobsHistoryLimit", 3)),
            ("Failed", spec.get("failedJobsHistoryLimit", 1)),
        ):
            ended = sorted((job for job in jobs if ended_as(job) == outcome), key=_started)
            for job in ended[: max(len(ended) - limit, 0)]:
                await self._delete(cronjob, job)

    async def _delete(self, cronjob: Object, job: Object) -> None:
        if await self._jobs.delete(cronjob, job):
            message = f"Deleted job {job['metadata']['name']}"
            self._events.event(cronjob, "Normal", "SuccessfulDelete", message)

    async def _run(self, cronjob: Object, status: Object) -> None:
        schedule = self._schedule(cronjob)
        if schedule is None:
            return
        now = clock.now()
        due, missed = _due(cronjob, schedule, now)
        following = schedule.after(now)
        if following is not None:
            self.queue.add_after(key_of(cronjob), (following - now).total_seconds() + _LITTLE)
        if missed > _MANY:
            message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self._events.event(cronjob, "Warning", "TooManyMissedTimes", message)
        if due is None:
            return
        deadline = cronjob["spec"].get("startingDeadlineSeconds")
        if deadline is not None and due + timedelta(seconds=deadline) < now:
            message = f"Missed scheduled time to start a job: {due.strftime('%a, %d %b %Y %H:%M:%S +0000')}"
            self._events.event(cronjob, "Warning", "MissSchedule", message)
            return
        wanted = _job(cronjob, due)
        if any(job["metadata"]["name"] == wanted["metadata"]["name"] for job in self._jobs.of(cronjob)):
            status["lastScheduleTime"] = clock.rfc3339(due)
            return
        running = [job for job in self._jobs.of(cronjob) if not ended_as(job)]
        policy = cronjob["spec"].get("concurrencyPolicy", "Allow")
        if policy == "Forbid" and running:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._events.event(cronjob, "Normal", "JobAlreadyActive", message)
            return
        if policy == "Replace":
            for job in running:
                await self._delete(cronjob, job)
            going = {job["metadata"]["uid"] for job in running}
            status["active"] = [item for item in status["active"] if item["uid"] not in going]
        try:
            job = await self._jobs.create(cronjob, wanted)
        except KubernetesError as error:
            if error.reason == "AlreadyExists":
                status["lastScheduleTime"] = clock.rfc3339(due)
                return
            self._events.event(cronjob, "Warning", "FailedCreate", f"Error creating job: {error}")
            raise
        self._events.event(cronjob, "Normal", "SuccessfulCreate", f"Created job {job['metadata']['name']}")
        status["lastScheduleTime"] = clock.rfc3339(due)
        status["active"] = sorted([*status["active"], _reference(job)], key=lambda item: str(item["name"]))

    def _schedule(self, cronjob: Object) -> Schedule | None:
        spec = cronjob["spec"]
        zone = spec.get("timeZone")
        try:
            return parse(spec["schedule"], ZoneInfo(zone) if zone else UTC)
        except (ZoneInfoNotFoundError, OSError):
            message = f'invalid timeZone: "{zone}": unknown time zone {zone}'
            self._events.event(cronjob, "Warning", "UnknownTimeZone", message)
        except ValueError as error:
            message = f'unparseable schedule: "{spec["schedule"]}" : {error}'
            self._events.event(cronjob, "Warning", "UnparseableSchedule", message)
        return None

    async def _write_status(self, cronjob: Object, status: Object) -> None:
        status = {name: value for name, value in status.items() if value}
        if status == (cronjob.get("status") or {}):
            return
        try:
            await self._client.update(CRONJOBS, {**cronjob, "status": status}, "status")
        except KubernetesError as error:
            if error.code == 409:
                self.queue.add(key_of(cronjob))
            elif error.code != 404:
                raise


def ended_as(job: Object) -> str:
    """`Complete` or `Failed` where a job has ended."""
    return next((kind for kind in ("Complete", "Failed") if condition_of(job, kind).get("status") == "True"), "")


def _due(cronjob: Object, schedule: Schedule, now: datetime) -> tuple[datetime | None, int]:
    """The last time that has passed and was not acted on, and how many such there are."""
    spec, status = cronjob["spec"], cronjob.get("status") or {}
    since = clock.parse(status.get("lastScheduleTime") or cronjob["metadata"]["creationTimestamp"])
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now - timedelta(seconds=deadline))
    first = schedule.after(since)
    if first is None or first > now:
        return None, 0
    second = schedule.after(first)
    if second is None or second > now:
        return first, 1
    # However many were missed, only the last counts: look for it from now back, ever further.
    missed = int((now - first) / (second - first)) + 1
    back = second - first
    last: datetime | None = None
    while last is None:
        probe = schedule.after(max(since, now - back))
        while probe is not None and probe <= now:
            last, probe = probe, schedule.after(probe)
        back *= 2
    return last, missed


def _job(cronjob: Object, due: datetime) -> Object:
    """The job of one time; its name has the minute, so that no time is acted on twice."""
    template = cronjob["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {})}
    zone = cronjob["spec"].get("timeZone")
    annotations[_SCHEDULED_AT] = due.astimezone(ZoneInfo(zone) if zone else UTC).isoformat().replace("+00:00", "Z")
    return {
        "metadata": {
            "name": f"{cronjob['metadata']['name']}-{int(due.timestamp()) // 60}",
            "labels": metadata.get("labels") or {},
            "annotations": annotations,
        },
        "spec": template["spec"],
    }


def _started(job: Object) -> str:
    found: str = (job.get("status") or {}).get("startTime") or job["metadata"]["creationTimestamp"]
    return found


def _reference(job: Object) -> Object:
    metadata = job["metadata"]
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }
