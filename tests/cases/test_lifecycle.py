"""The life of containers: sidecars, probes, hooks, signals, deadlines, restarts and last messages."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.cases.path import IMAGE, LOGIN_SERVER, ThePath, pod
from tests.instances.images import busybox_layer

FOREVER = ["sleep", "600"]
#: Says which signal ended it.
TELLING = 'for s in INT TERM USR1; do trap "echo got $s; exit 0" $s; done; echo up; while :; do sleep 0.1; done'


def shell(script: str, name: str = "main", **container: Any) -> dict[str, Any]:
    """A container of IMAGE that runs a script."""
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **container}


def on_term(script: str) -> str:
    """A script that does something at SIGTERM and ends then."""
    return f"trap '{script}; exit 0' TERM; while :; do sleep 0.1; done"


def status_of(path: ThePath, name: str, container: str = "main") -> dict[str, Any]:
    """The status of a container of a pod."""
    status = path.get(name)["status"]
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return next((item for item in statuses if item["name"] == container), {})


def ended(path: ThePath, name: str, container: str = "main") -> dict[str, Any]:
    """How a container ended, once it has."""
    found: dict[str, Any] = path.until(
        lambda: status_of(path, name, container).get("state", {}).get("terminated"), f"end of {name}"
    )
    return found


@pytest.fixture(scope="module", autouse=True)
def pods(path: ThePath) -> None:
    """All pods of this module, so that they are waited for at the same time."""
    path.push("sigint:1", [busybox_layer()], StopSignal="SIGINT", Cmd=["sh", "-c", TELLING])
    shared: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mounted: dict[str, Any] = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    path.apply(
        pod(
            "sidecars",
            [shell("cat /v/first; echo main >>/v/order", **mounted)],
            initContainers=[
                shell(
                    on_term("cat /v/order >/dev/termination-log") + " & sleep 1; echo up >/v/first; wait",
                    "a",
                    restartPolicy="Always",
                    startupProbe={"exec": {"command": ["cat", "/v/first"]}, "periodSeconds": 1},
                    **mounted,
                ),
                shell("cat /v/first && echo init >/v/order", "b", **mounted),
                shell(on_term("echo c >>/v/order"), "c", restartPolicy="Always", **mounted),
            ],
            restartPolicy="Never",
            **shared,
        ),
        pod(
            "starting",
            [
                shell(
                    "sleep 2; exec httpd -f -p 80 -h /",
                    startupProbe={"tcpSocket": {"port": 80}, "failureThreshold": 60, "periodSeconds": 1},
                    livenessProbe={"httpGet": {"port": "web", "path": "/etc/passwd"}, "failureThreshold": 1},
                    ports=[{"name": "web", "containerPort": 80}],
                )
            ],
        ),
        pod(
            "sick",
            [
                shell(
                    "exec httpd -f -p 80 -h /www",
                    livenessProbe={
                        "httpGet": {"port": 80, "path": "/none"},
                        "periodSeconds": 1,
                        "failureThreshold": 1,
                        "terminationGracePeriodSeconds": 1,
                    },
                )
            ],
            terminationGracePeriodSeconds=600,
        ),
        pod(
            "slow",
            [{"name": "main", "command": FOREVER, "readinessProbe": {"exec": {"command": ["sleep", "60"]}}}],
        ),
        pod("late", [{"name": "main", "command": FOREVER}], activeDeadlineSeconds=4, restartPolicy="OnFailure"),
        pod(
            "last-words",
            [
                shell("echo no-config >/dev/termination-log; exit 3", "file"),
                shell("echo last words; exit 3", "log", terminationMessagePolicy="FallbackToLogsOnError"),
                shell("head -c 9000 /dev/zero >/v/said", "long", terminationMessagePath="/v/said"),
            ],
            restartPolicy="Never",
        ),
        pod("no-command", [{"name": "main", "command": ["nosuch"]}], restartPolicy="Never"),
        pod("crashing", [shell("exit 1"), {"name": "well", "command": FOREVER}]),
        pod(
            "rules",
            [
                shell(
                    "[ -e /v/once ] && exit 0; echo >/v/once; exit 42",
                    restartPolicy="Never",
                    restartPolicyRules=[{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
                    **mounted,
                )
            ],
            restartPolicy="Never",
            **shared,
        ),
        pod(
            "unhooked",
            [{"name": "main", "command": FOREVER, "lifecycle": {"postStart": {"exec": {"command": ["false"]}}}}],
            restartPolicy="Never",
        ),
        pod("by-image", [{"name": "main", "image": f"{LOGIN_SERVER}/sigint:1"}], terminationGracePeriodSeconds=30),
        pod(
            "hooked",
            [
                shell(
                    TELLING,
                    lifecycle={
                        "postStart": {"exec": {"command": ["sh", "-c", "echo up >/tmp/up"]}},
                        "preStop": {"exec": {"command": ["sh", "-c", "sleep 1; echo bye >/proc/1/fd/1; exit 1"]}},
                    },
                )
            ],
            terminationGracePeriodSeconds=30,
        ),
    )


def test_sidecars_start_before_and_end_after_the_others_in_reverse_order(path: ThePath) -> None:
    path.wait_phase("sidecars", "Succeeded")
    assert path.kubectl("logs", "sidecars", "-c", "main") == "up\n"
    assert ended(path, "sidecars", "a")["message"] == "init\nmain\nc\n"
    assert ended(path, "sidecars", "b")["reason"] == "Completed"


def test_liveness_waits_for_the_startup_probe(path: ThePath) -> None:
    path.wait("pod/starting", "condition=Ready")
    status = status_of(path, "starting")
    assert (status["restartCount"], status["started"], status["ready"]) == (0, True, True)
    assert "Startup probe failed: dial tcp " in path.events("starting", "Unhealthy")


def test_a_container_that_is_not_alive_is_ended_and_started_again(path: ThePath) -> None:
    path.until(lambda: status_of(path, "sick").get("restartCount"), "restart")
    unhealthy = path.events("sick", "Unhealthy")
    assert "Liveness probe failed: HTTP probe failed with statuscode: 404" in unhealthy
    assert "Container main failed liveness probe, will be restarted" in path.events("sick", "Killing")


def test_a_command_that_takes_too_long_has_failed(path: ThePath) -> None:
    expected = 'Readiness probe failed: command timed out: "sleep 60" timed out after 1s'
    assert expected in path.events("slow", "Unhealthy")
    assert not status_of(path, "slow")["ready"]


def test_a_pod_that_is_active_too_long_fails(path: ThePath) -> None:
    path.wait_phase("late", "Failed")
    status = path.get("late")["status"]
    assert status["reason"] == "DeadlineExceeded"
    assert status["message"] == "Pod was active on the node longer than the specified deadline"


def test_the_last_message_of_a_container_is_in_its_status(path: ThePath) -> None:
    assert ended(path, "last-words", "file")["message"] == "no-config\n"
    assert ended(path, "last-words", "log")["message"] == "last words\n"
    assert len(ended(path, "last-words", "long")["message"]) == 4096


def test_a_command_that_cannot_be_started_is_told_in_the_words_of_the_runtime(path: ThePath) -> None:
    end = ended(path, "no-command")
    assert (end["exitCode"], end["reason"]) == (128, "StartError")
    assert end["message"] == (
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
        'unable to start container process: exec: "nosuch": executable file not found in $PATH: unknown'
    )
    assert end["message"] in path.events("no-command", "Failed")
    path.wait_phase("no-command", "Failed")


def test_a_pod_runs_on_while_one_of_its_containers_waits(path: ThePath) -> None:
    waiting = path.until(lambda: status_of(path, "crashing").get("state", {}).get("waiting"), "back-off")
    found = path.get("crashing")
    assert found["status"]["phase"] == "Running"
    who = f"pod=crashing_default({found['metadata']['uid']})"
    assert waiting["reason"] == "CrashLoopBackOff"
    assert re.fullmatch(rf"back-off \S+ restarting failed container=main {re.escape(who)}", waiting["message"])
    status = status_of(path, "crashing")
    assert status["restartCount"] >= 1
    assert status["lastState"]["terminated"]["exitCode"] == 1


def test_a_container_is_restarted_by_its_own_rules(path: ThePath) -> None:
    path.wait_phase("rules", "Succeeded")
    assert status_of(path, "rules")["restartCount"] == 1


def test_a_container_whose_first_hook_fails_is_ended(path: ThePath) -> None:
    path.wait_phase("unhooked", "Failed")
    assert path.events("unhooked", "FailedPostStartHook") == "PostStartHook failed"
    assert path.events("unhooked", "Killing") == "FailedPostStartHook"


def test_the_hook_runs_before_the_signal_of_the_image_or_the_default(path: ThePath) -> None:
    for name, expected in (("by-image", "up\ngot INT\n"), ("hooked", "up\nbye\ngot TERM\n")):
        path.wait_phase(name, "Running")
        path.until(lambda name=name: "up" in path.kubectl("logs", name), f"first line of {name}")  # type: ignore[misc]
        command = ("kubectl", "logs", "-f", name)
        environment = path.installation.environment
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as following:
            if name == "hooked":
                assert path.kubectl("exec", name, "--", "cat", "/tmp/up") == "up\n"
            path.kubectl("delete", "pod", name)
            output, _ = following.communicate(timeout=60)
        assert output == expected
    assert path.events("hooked", "FailedPreStopHook") == "PreStopHook failed"


def test_a_field_of_a_container_that_cannot_be_is_refused_by_name(path: ThePath) -> None:
    body = pod("odd", [shell("true", lifecycle={"preStop": {"sleep": {"seconds": 1}}})])
    body["spec"]["initContainers"] = [shell("true", "first", livenessProbe={"tcpSocket": {"port": 1}})]
    printed = path.apply(body, code=1)
    assert "livenessProbe" in json.dumps(printed)
