"""Cron jobs create a job at each time of a schedule (`pkg/controller/cronjob`, version 2)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import CRONJOBS, JOBS
from cumulet.common.kubernetes.objects import CronJob, CronJobStatus, Job, Object, ObjectReference
from cumulet.controllers.conditions import status_of
from cumulet.controllers.controller import Context, Key, controller_of, key_of
from cumulet.controllers.cron import Schedule, parse
from cumulet.controllers.owned import Owned

_SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
#: More missed times than this are reported, because of a jump of the clock or a long outage.
_MANY = 100
#: The seconds after the scheduled time at which a job is created, so that the clock has reached the time.
_LITTLE = 0.1
_CENTURY = 100 * 366 * 86_400


class CronJobController:
    """The controller of cron jobs."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("cronjob-controller")
        self._cronjobs = context.informer(CRONJOBS)
        self._jobs = Owned(context, JOBS, CRONJOBS)
        self._cronjobs.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._jobs.informer.add_handler(self._job_changed)

    def _job_changed(self, change: str, job: Job, old: Job | None) -> None:
        owner = controller_of(job)
        if owner is not None and owner["kind"] == CRONJOBS.kind:
            self.queue.add((job["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> None:
        """Record ended jobs, delete old ones, create the job that is due, and queue the next time."""
        cronjob = self._cronjobs.get(key[1], key[0])
        if cronjob is None:
            return
        status: CronJobStatus = {**(cronjob.get("status") or {})}
        jobs = self._jobs.of(cronjob)
        await self._record(cronjob, jobs, status)
        await self._delete_old(cronjob, jobs)
        try:
            if not cronjob["metadata"].get("deletionTimestamp") and not cronjob["spec"].get("suspend"):
                await self._run(cronjob, status)
        finally:
            await self._write_status(cronjob, status)

    async def _record(self, cronjob: CronJob, jobs: list[Job], status: CronJobStatus) -> None:
        """Update the list of active jobs in the status. Running jobs that are not listed are reported and do not count."""
        if unexpected := _unlisted(jobs, status):
            # This process may have created them just now, before the watch delivered its own status.
            newest = await self._newest(cronjob)
            status["active"] = (newest.get("status") or {}).get("active") or []
            unexpected = _unlisted(jobs, status)
        for job in unexpected:
            message = f"Saw a job that the controller did not create or forgot: {job['metadata']['name']}"
            self._events.event(cronjob, "Warning", "UnexpectedJob", message)
        by_uid = {job["metadata"]["uid"]: job for job in jobs}
        active = []
        for item in status.get("active") or ():
            known = by_uid.get(item["uid"])
            if known is None and not await self._exists(item):
                self._events.event(cronjob, "Normal", "MissingJob", f"Active job went missing: {item['name']}")
            elif known is not None and (ended := ended_as(known)):
                message = f"Saw completed job: {item['name']}, condition: {ended}"
                self._events.event(cronjob, "Normal", "SawCompletedJob", message)
            else:
                active.append(item)
        status["active"] = active
        done = [(job.get("status") or {}).get("completionTime") or "" for job in jobs if ended_as(job) == "Complete"]
        status["lastSuccessfulTime"] = max([*done, status.get("lastSuccessfulTime", "")])

    async def _newest(self, cronjob: CronJob) -> CronJob:
        try:
            return await self._client.get(CRONJOBS, cronjob["metadata"]["name"], cronjob["metadata"]["namespace"])
        except KubernetesError as error:
            if error.code != 404:
                raise
            return cronjob

    async def _exists(self, reference: ObjectReference) -> bool:
        """Whether a job exists that the informer does not have, perhaps because it is new."""
        try:
            job = await self._client.get(JOBS, reference["name"], reference["namespace"])
        except KubernetesError as error:
            if error.code != 404:
                raise
            return False
        return job["metadata"]["uid"] == reference["uid"]

    async def _delete_old(self, cronjob: CronJob, jobs: list[Job]) -> None:
        spec = cronjob["spec"]
        for outcome, limit in (
            ("Complete", spec.get("successfulJobsHistoryLimit", 3)),
            ("Failed", spec.get("failedJobsHistoryLimit", 1)),
        ):
            ended = sorted((job for job in jobs if ended_as(job) == outcome), key=_started)
            for job in ended[: max(len(ended) - limit, 0)]:
                await self._delete(cronjob, job)

    async def _delete(self, cronjob: CronJob, job: Job) -> None:
        if await self._jobs.delete(cronjob, job):
            message = f"Deleted job {job['metadata']['name']}"
            self._events.event(cronjob, "Normal", "SuccessfulDelete", message)

    async def _run(self, cronjob: CronJob, status: CronJobStatus) -> None:
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
        deadline = _deadline(cronjob)
        if deadline is not None and due + deadline < now:
            message = f"Missed scheduled time to start a job: {due.strftime('%a, %d %b %Y %H:%M:%S +0000')}"
            self._events.event(cronjob, "Warning", "MissSchedule", message)
            return
        desired = _job(cronjob, due)
        if status.get("lastScheduleTime") == clock.rfc3339(due) or any(
            item["name"] == desired["metadata"]["name"] for item in status["active"]
        ):
            return
        policy = cronjob["spec"].get("concurrencyPolicy", "Allow")
        if policy == "Forbid" and status["active"]:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._events.event(cronjob, "Normal", "JobAlreadyActive", message)
            return
        if policy == "Replace":
            active = {item["uid"] for item in status["active"]}
            for job in self._jobs.of(cronjob):
                if job["metadata"]["uid"] in active:
                    await self._delete(cronjob, job)
            status["active"] = []
        try:
            job = await self._jobs.create(cronjob, desired)
        except KubernetesError as error:
            if error.reason != "AlreadyExists":
                self._events.event(cronjob, "Warning", "FailedCreate", f"Error creating job: {error}")
                raise
            job = await self._client.get(JOBS, desired["metadata"]["name"], cronjob["metadata"]["namespace"])
            owner = controller_of(job)
            if owner is not None and owner["uid"] == cronjob["metadata"]["uid"]:
                # This controller created it and stopped before it wrote the status.
                self._add_active(status, job, due)
            return
        self._events.event(cronjob, "Normal", "SuccessfulCreate", f"Created job {job['metadata']['name']}")
        self._add_active(status, job, due)

    def _add_active(self, status: CronJobStatus, job: Job, due: datetime) -> None:
        status["lastScheduleTime"] = clock.rfc3339(due)
        if not ended_as(job):
            status["active"] = [*status["active"], _reference(job)]

    def _schedule(self, cronjob: CronJob) -> Schedule | None:
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

    async def _write_status(self, cronjob: CronJob, status: CronJobStatus) -> None:
        written: Object = {name: value for name, value in status.items() if value}
        if written == (cronjob.get("status") or {}):
            return
        try:
            await self._client.update_status(CRONJOBS, cronjob, written)
        except KubernetesError as error:
            if error.code == 409:
                self.queue.add(key_of(cronjob))
            elif error.code != 404:
                raise


def _unlisted(jobs: list[Job], status: CronJobStatus) -> list[Job]:
    """The running jobs that the status does not list."""
    listed = {item["uid"] for item in status.get("active") or ()}
    return [job for job in jobs if job["metadata"]["uid"] not in listed and not ended_as(job)]


def ended_as(job: Job) -> str:
    """`Complete` or `Failed` for a job that has ended, or else empty."""
    return next((kind for kind in ("Complete", "Failed") if status_of(job, kind) == "True"), "")


def _deadline(cronjob: CronJob) -> timedelta | None:
    """The starting deadline, limited to a century because the field allows more than a `timedelta` can hold."""
    seconds = cronjob["spec"].get("startingDeadlineSeconds")
    return None if seconds is None else timedelta(seconds=min(seconds, _CENTURY))


def _due(cronjob: CronJob, schedule: Schedule, now: datetime) -> tuple[datetime | None, int]:
    """The last time that has passed without a job, and the number of such times."""
    status = cronjob.get("status") or {}
    since = clock.parse(status.get("lastScheduleTime") or cronjob["metadata"]["creationTimestamp"])
    deadline = _deadline(cronjob)
    if deadline is not None:
        since = max(since, now - deadline)
    first = schedule.after(since)
    if first is None or first > now:
        return None, 0
    second = schedule.after(first)
    if second is None or second > now:
        return first, 1
    # Only the last missed time counts. Search for it backwards from now in growing steps.
    missed = int((now - first) / (second - first)) + 1
    back = second - first
    last: datetime | None = None
    while last is None:
        probe = schedule.after(max(since, now - back))
        while probe is not None and probe <= now:
            last, probe = probe, schedule.after(probe)
        back *= 2
    return last, missed


def _job(cronjob: CronJob, due: datetime) -> Job:
    """The job of one time. Its name contains the minute, so that no time gets two jobs."""
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


def _started(job: Job) -> str:
    return (job.get("status") or {}).get("startTime") or job["metadata"]["creationTimestamp"]


def _reference(job: Job) -> ObjectReference:
    metadata = job["metadata"]
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }
