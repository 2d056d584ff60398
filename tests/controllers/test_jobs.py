"""Jobs and cron jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cumulet.controllers.cron import parse
from cumulet.controllers.job import indexes
from tests.controllers.space import Object, Space, condition, template

JOBS = "jobs"


def job(name: str, life: str = "succeeds", code: int = 1, **spec: Any) -> Object:
    """A job whose pods end so."""
    made = template(name, life, {"exit-code": str(code)}, restartPolicy="Never")
    return {"metadata": {"name": name}, "spec": made | spec}


def _ended(kind: str) -> Any:
    return lambda obj: condition(obj, kind).get("status") == "True"


def test_as_many_as_wanted(space: Space) -> None:
    space.make(JOBS, job("j", completions=3, parallelism=2))
    done = space.wait(JOBS, "j", _ended("Complete"))
    assert done["status"]["succeeded"] == 3
    assert done["status"]["uncountedTerminatedPods"] == {}
    assert condition(done, "SuccessCriteriaMet")["reason"] == "CompletionsReached"
    assert "completionTime" in done["status"]
    assert space.wait_event("j", "Completed") == "Job completed"
    pods = space.all("pods")
    assert len(pods) == 3
    assert not any(pod["metadata"].get("finalizers") for pod in pods)
    space.kubectl("wait", "job/j", "--for=condition=complete", "--timeout=5s")


def test_each_index_once(space: Space) -> None:
    space.make(JOBS, job("j", completions=3, parallelism=3, completionMode="Indexed"))
    done = space.wait(JOBS, "j", _ended("Complete"))
    assert done["status"]["completedIndexes"] == "0-2"
    pod = next(pod for pod in space.all("pods") if pod["metadata"]["name"].startswith("j-1-"))
    assert pod["spec"]["hostname"] == "j-1"
    assert pod["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    enough = {"rules": [{"succeededIndexes": "1", "succeededCount": 1}]}
    space.make(JOBS, job("k", "waits", completions=3, parallelism=3, completionMode="Indexed", successPolicy=enough))
    second = space.wait_any("pods", lambda pod: pod["metadata"]["name"].startswith("k-1-"))
    space.status("pods", second["metadata"]["name"], phase="Succeeded")
    done = space.wait(JOBS, "k", _ended("Complete"))
    assert condition(done, "Complete")["message"] == "Matched rules at index 0"


@pytest.mark.parametrize(
    ("made", "reason", "message"),
    [
        (job("j", "fails", backoffLimit=0), "BackoffLimitExceeded", "Job has reached the specified backoff limit"),
        (
            job("j", "waits", activeDeadlineSeconds=1),
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        ),
        (
            job(
                "j",
                "fails",
                42,
                podFailurePolicy={
                    "rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]
                },
            ),
            "PodFailurePolicy",
            " failed with exit code 42 matching FailJob rule at index 0",
        ),
        (
            job("j", "fails", completions=2, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=0),
            "FailedIndexes",
            "Job has failed indexes",
        ),
    ],
)
def test_how_jobs_fail(space: Space, made: Object, reason: str, message: str) -> None:
    space.make(JOBS, made)
    failed = space.wait(JOBS, "j", _ended("Failed"))
    assert condition(failed, "Failed")["reason"] == reason
    assert message in condition(failed, "Failed")["message"]
    assert condition(failed, "FailureTarget")["reason"] == reason
    assert not failed["status"].get("active")


def test_suspending_and_resuming(space: Space) -> None:
    space.make(JOBS, job("j", "runs", parallelism=2, completions=2))
    space.wait_status(JOBS, "j", ready=2)
    space.patch(JOBS, "j", {"spec": {"suspend": True}})
    held = space.wait(JOBS, "j", lambda obj: condition(obj, "Suspended") and not obj["status"].get("active"))
    assert condition(held, "Suspended")["reason"] == "JobSuspended"
    assert "startTime" not in held["status"]
    space.patch(JOBS, "j", {"spec": {"suspend": False}})
    resumed = space.wait_status(JOBS, "j", ready=2)
    assert "failed" not in resumed["status"]  # those that were held back did not fail
    assert condition(resumed, "Suspended")["status"] == "False"
    for pod in space.living():
        space.status("pods", pod["metadata"]["name"], phase="Succeeded")
    space.wait(JOBS, "j", _ended("Complete"))


def test_deleted_pods_and_jobs(space: Space) -> None:
    space.make(JOBS, job("j", "runs", backoffLimit=0))
    space.wait_status(JOBS, "j", ready=1)
    space.delete("pods", space.names("pods")[0])
    space.wait(JOBS, "j", _ended("Failed"))
    space.make(JOBS, job("k", "runs", parallelism=2))
    space.wait_status(JOBS, "k", ready=2)
    pods = [pod["metadata"]["name"] for pod in space.living()]
    space.delete(JOBS, "k", propagationPolicy="Background")
    for name in pods:
        space.wait_gone("pods", name)


def test_gone_some_time_after_the_end(space: Space) -> None:
    space.make(JOBS, job("j", ttlSecondsAfterFinished=1))
    space.wait(JOBS, "j", _ended("Complete"))
    space.wait_gone(JOBS, "j")


def cronjob(schedule: str, life: str = "runs", **spec: Any) -> Object:
    """A cron job of jobs that run on."""
    return {
        "metadata": {"name": "tick"},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": job("x", life)["spec"]}} | spec,
    }


def test_what_is_due_is_started(space: Space) -> None:
    space.make("cronjobs", cronjob("@every 1s", concurrencyPolicy="Forbid"))
    first = space.wait("cronjobs", "tick", lambda obj: obj["status"].get("active"))
    assert first["status"]["lastScheduleTime"]
    name = first["status"]["active"][0]["name"]
    assert space.wait_event("tick", "SuccessfulCreate") == f"Created job {name}"
    owner = space.get(JOBS, name)["metadata"]
    assert owner["ownerReferences"][0]["kind"] == "CronJob"
    assert "batch.kubernetes.io/cronjob-scheduled-timestamp" in owner["annotations"]
    space.patch("cronjobs", "tick", {"spec": {"suspend": True}})
    for pod in space.living():
        space.status("pods", pod["metadata"]["name"], phase="Succeeded")
    ended = space.wait("cronjobs", "tick", lambda obj: obj["status"].get("lastSuccessfulTime"))
    assert not ended["status"].get("active")
    assert space.wait_event("tick", "SawCompletedJob") == f"Saw completed job: {name}, condition: Complete"
    space.patch("cronjobs", "tick", {"spec": {"successfulJobsHistoryLimit": 0}})
    space.wait_gone(JOBS, name)


@pytest.mark.parametrize("policy", ["Forbid", "Replace"])
def test_when_the_last_one_still_runs(space: Space, policy: str) -> None:
    made = space.make("cronjobs", cronjob("* * * * *", concurrencyPolicy=policy, suspend=True))
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": made["metadata"]["uid"]}
    running = job("tick-0", "runs")
    running["metadata"]["ownerReferences"] = [owner | {"controller": True}]
    uid = space.make(JOBS, running)["metadata"]["uid"]
    # What somebody else began does not count.
    unexpected = "Saw a job that the controller did not create or forgot: tick-0"
    assert space.wait_event("tick", "UnexpectedJob") == unexpected
    before = (datetime.now(UTC) - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    active = [{"apiVersion": "batch/v1", "kind": "Job", "name": "tick-0", "namespace": space.name, "uid": uid}]
    space.status("cronjobs", "tick", lastScheduleTime=before, active=active)
    space.patch("cronjobs", "tick", {"spec": {"suspend": False}})
    if policy == "Forbid":
        message = "Not starting job because prior execution is running and concurrency policy is Forbid"
        assert space.wait_event("tick", "JobAlreadyActive") == message
        assert space.names(JOBS) == ["tick-0"]
    else:
        space.wait_gone(JOBS, "tick-0")
        space.wait(
            "cronjobs", "tick", lambda obj: [item["name"] for item in obj["status"]["active"]] not in ([], ["tick-0"])
        )
    space.patch("cronjobs", "tick", {"spec": {"suspend": True}})


def test_a_deadline_beyond_all_time_is_none(space: Space) -> None:
    space.make("cronjobs", cronjob("@every 1s", concurrencyPolicy="Forbid", startingDeadlineSeconds=2**62))
    space.wait("cronjobs", "tick", lambda obj: obj["status"].get("active"))


def test_too_late_is_not_at_all_but_by_hand(space: Space) -> None:
    late = cronjob("* * * * *", startingDeadlineSeconds=1)
    late["metadata"]["name"] = "quiet"
    space.make("cronjobs", late)
    space.kubectl("create", "job", "by-hand", "--from=cronjob/quiet")
    space.wait(JOBS, "by-hand", lambda obj: obj["status"].get("active"))


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        ("*/15 * * * *", "UTC", "2026-01-01T00:01:00Z", "2026-01-01T00:15:00Z"),
        ("0 9 * * mon-fri", "UTC", "2026-11-20T10:00:00Z", "2026-11-23T09:00:00Z"),
        ("30 4 1,15 * 5", "UTC", "2026-06-02T00:00:00Z", "2026-06-05T04:30:00Z"),
        ("@yearly", "UTC", "2026-06-02T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("0 0 29 2 *", "UTC", "2026-06-02T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("0 12 * * *", "America/New_York", "2026-07-01T00:00:00Z", "2026-07-01T16:00:00Z"),
        # The hour that spring leaves out is not made up for; that which autumn has twice counts once.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ("@every 1h30m", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
    ],
)
def test_times(schedule: str, zone: str, after: str, expected: str) -> None:
    found = parse(schedule, ZoneInfo(zone)).after(datetime.fromisoformat(after))
    assert found == datetime.fromisoformat(expected)


def test_numbers_in_a_row() -> None:
    texts = {(0,): "0", (0, 1): "0,1", (0, 1, 2): "0-2", (1, 2, 4, 5, 6, 9): "1,2,4-6,9", (): ""}
    assert {numbers: indexes.render(numbers) for numbers in texts} == texts
    assert all(indexes.parse(text) == set(numbers) for numbers, text in texts.items())


def test_no_time_ever() -> None:
    assert parse("0 0 30 2 *").after(datetime.now(UTC)) is None
    for text in ("* * * *", "60 * * * *", "* * * * 7", "@often", "*/0 * * * *", "@every soon", "5-1 * * * *"):
        with pytest.raises(ValueError, match=r"\w"):
            parse(text)
    assert parse("@every 1s").every == timedelta(seconds=1)


FINALIZER = "batch.kubernetes.io/job-tracking"


def _is_untracked(pod: Object) -> bool:
    return FINALIZER not in (pod["metadata"].get("finalizers") or ())


def test_a_pod_that_a_job_lets_go_can_end(space: Space) -> None:
    space.make(JOBS, job("j", "runs", completions=2, parallelism=2))
    pod = space.wait_any("pods", lambda pod: pod["status"].get("phase") == "Running")
    name = pod["metadata"]["name"]
    assert not _is_untracked(pod)
    space.patch("pods", name, {"metadata": {"labels": {"batch.kubernetes.io/controller-uid": None}}})
    let_go = space.wait("pods", name, lambda pod: not pod["metadata"].get("ownerReferences"))
    assert _is_untracked(space.wait("pods", name, _is_untracked))
    assert let_go["metadata"]["uid"] == pod["metadata"]["uid"]
    space.delete("pods", name)
    space.wait_gone("pods", name)
    # Another is made in its place.
    space.wait_status(JOBS, "j", active=2)


def test_pods_that_outlive_their_job_can_end(space: Space) -> None:
    space.make(JOBS, job("j", "runs", completions=2, parallelism=2))
    space.wait_status(JOBS, "j", active=2, ready=2)
    space.kubectl("delete", "job", "j", "--cascade=orphan", "--wait=true", "--timeout=20s")
    for pod in space.all("pods"):
        name = pod["metadata"]["name"]
        left = space.wait("pods", name, _is_untracked)
        assert not left["metadata"].get("ownerReferences")
        space.delete("pods", name)
        space.wait_gone("pods", name)


def test_a_suspended_job_drops_a_pod_that_it_took(space: Space) -> None:
    space.make(JOBS, job("j", "runs", completions=1, parallelism=1, suspend=True))
    made = space.wait(JOBS, "j", lambda obj: condition(obj, "Suspended"))
    template = made["spec"]["template"]
    space.make(
        "pods", {"metadata": {"name": "stray", "labels": template["metadata"]["labels"]}, "spec": template["spec"]}
    )
    # It is nobody's, and the job's by its labels; a job that is suspended drops it again.
    space.wait_gone("pods", "stray")


def test_a_pod_of_nobody_can_end(space: Space) -> None:
    finalizer = {"metadata": {"name": "left", "finalizers": [FINALIZER]}}
    space.make("pods", {**finalizer, "spec": template("left")["template"]["spec"]})
    space.wait("pods", "left", _is_untracked)
