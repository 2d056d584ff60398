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
_CENTURY = 100 * 366 * 86_400


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
        await self._note(cronjob, jobs, status)
        await self._forget_old(cronjob, jobs)
        try:
            if not cronjob["metadata"].get("deletionTimestamp") and not cronjob["spec"].get("suspend"):
                await self._run(cronjob, status)
        finally:
            await self._write_status(cronjob, status)

    async def _note(self, cronjob: Object, jobs: list[Object], status: Object) -> None:
        """Which of the active jobs have ended or are gone; others that run are told of and do not count."""
        if unexpected := _unlisted(jobs, status):
            # This process may have begun them a moment ago, and not have heard of its own status yet.
            newest = await self._newest(cronjob)
            status["active"] = (newest.get("status") or {}).get("active") or []
            unexpected = _unlisted(jobs, status)
        for job in unexpected:
            message = f"Saw a job that the controller did not create or forgot: {job['metadata']['name']}"
            self._events.event(cronjob, "Warning", "UnexpectedJob", message)
        found = {job["metadata"]["uid"]: job for job in jobs}
        active = []
        for item in status.get("active") or ():
            known = found.get(item["uid"])
            if known is None and not await self._is_there(item):
                self._events.event(cronjob, "Normal", "MissingJob", f"Active job went missing: {item['name']}")
            elif known is not None and (ended := ended_as(known)):
                message = f"Saw completed job: {item['name']}, condition: {ended}"
                self._events.event(cronjob, "Normal", "SawCompletedJob", message)
            else:
                active.append(item)
        status["active"] = active
        done = [(job.get("status") or {}).get("completionTime") or "" for job in jobs if ended_as(job) == "Complete"]
        status["lastSuccessfulTime"] = max([*done, status.get("lastSuccessfulTime", "")])

    async def _newest(self, cronjob: Object) -> Object:
        try:
            return await self._client.get(CRONJOBS, cronjob["metadata"]["name"], cronjob["metadata"]["namespace"])
        except KubernetesError as error:
            if error.code != 404:
                raise
            return cronjob

    async def _is_there(self, reference: Object) -> bool:
        """Ask for a job that the informer does not know, which may not have heard of it yet."""
        try:
            job = await self._client.get(JOBS, reference["name"], reference["namespace"])
        except KubernetesError as error:
            if error.code != 404:
                raise
            return False
        return bool(job["metadata"]["uid"] == reference["uid"])

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
        deadline = _deadline(cronjob)
        if deadline is not None and due + deadline < now:
            message = f"Missed scheduled time to start a job: {due.strftime('%a, %d %b %Y %H:%M:%S +0000')}"
            self._events.event(cronjob, "Warning", "MissSchedule", message)
            return
        wanted = _job(cronjob, due)
        if status.get("lastScheduleTime") == clock.rfc3339(due) or any(
            item["name"] == wanted["metadata"]["name"] for item in status["active"]
        ):
            return
        policy = cronjob["spec"].get("concurrencyPolicy", "Allow")
        if policy == "Forbid" and status["active"]:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._events.event(cronjob, "Normal", "JobAlreadyActive", message)
            return
        if policy == "Replace":
            going = {item["uid"] for item in status["active"]}
            for job in self._jobs.of(cronjob):
                if job["metadata"]["uid"] in going:
                    await self._delete(cronjob, job)
            status["active"] = []
        try:
            job = await self._jobs.create(cronjob, wanted)
        except KubernetesError as error:
            if error.reason != "AlreadyExists":
                self._events.event(cronjob, "Warning", "FailedCreate", f"Error creating job: {error}")
                raise
            job = await self._client.get(JOBS, wanted["metadata"]["name"], cronjob["metadata"]["namespace"])
            if (controller_of(job) or {}).get("uid") == cronjob["metadata"]["uid"]:
                # This controller began it and was stopped before it could say so.
                self._begun(status, job, due)
            return
        self._events.event(cronjob, "Normal", "SuccessfulCreate", f"Created job {job['metadata']['name']}")
        self._begun(status, job, due)

    def _begun(self, status: Object, job: Object, due: datetime) -> None:
        status["lastScheduleTime"] = clock.rfc3339(due)
        if not ended_as(job):
            status["active"] = [*status["active"], _reference(job)]

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


def _unlisted(jobs: list[Object], status: Object) -> list[Object]:
    """Jobs that run and are not said to."""
    listed = {item["uid"] for item in status.get("active") or ()}
    return [job for job in jobs if job["metadata"]["uid"] not in listed and not ended_as(job)]


def ended_as(job: Object) -> str:
    """`Complete` or `Failed` where a job has ended."""
    return next((kind for kind in ("Complete", "Failed") if condition_of(job, kind).get("status") == "True"), "")


def _deadline(cronjob: Object) -> timedelta | None:
    """How late a job may start, where that is said; the field takes more seconds than there are in all time."""
    seconds = cronjob["spec"].get("startingDeadlineSeconds")
    return None if seconds is None else timedelta(seconds=min(seconds, _CENTURY))


def _due(cronjob: Object, schedule: Schedule, now: datetime) -> tuple[datetime | None, int]:
    """The last time that has passed and was not acted on, and how many such there are."""
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
