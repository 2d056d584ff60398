"""The whole path with the clients that people use: buildah, kubectl and curl.

The tests of this module are the steps of one walk: each takes up where the one before it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cumulet.common import router
from cumulet.common.config import load
from tests.end_to_end.cluster import EXAMPLE, IMAGE, NODE, Cluster
from tests.installation import Installation

DEPLOYMENT = "deployment/acrdemo2ss-deployment"
PODS = ("-l", "app=acrdemo2ss")
MANIFESTS = str(EXAMPLE / "kube-manifests")
PAGE = "Welcome to app3: V1"
ROOMS = (
    "identity",
    "kube",
    "arm",
    "registry",
    "instances",
    "node",
    "scheduler",
    "controllers",
    "balancer",
    "network",
)


def test_every_room_is_ready(cluster: Cluster) -> None:
    assert set(cluster.installation.pids()) == {*ROOMS}
    cluster.wait(f"node/{NODE}", "condition=Ready")


def test_what_runs_is_not_changed_beneath_itself(cluster: Cluster) -> None:
    settings = cluster.installation.data_dir / "config.json"
    before = settings.read_bytes()
    said = cluster.installation.run("cumulet", "up", "--detach", "--pod-cidr", "10.99.0.0/16", code=1)
    assert "already running" in said
    assert settings.read_bytes() == before


def test_what_was_pushed_is_listed(cluster: Cluster) -> None:
    assert cluster.installation.cumulet("registry", "repositories", "acrdemo2ss") == ["app3/acr-app3"]
    assert cluster.installation.cumulet("registry", "tags", "acrdemo2ss", "app3/acr-app3") == ["v1"]


@pytest.mark.parametrize(
    ("who", "password", "status", "code"),
    [("PULL", None, 403, "DENIED"), ("NONE", None, 403, "DENIED"), ("PUSH", "not-the-secret", 401, "UNAUTHORIZED")],
)
def test_a_push_needs_the_role_and_the_secret(
    cluster: Cluster, who: str, password: str | None, status: int, code: str
) -> None:
    client_id, secret = cluster.credentials(who)
    url = f"https://{cluster.installation.environment['CUMULET_REGISTRY']}/v2/app3/acr-app3/blobs/uploads/"
    answer = cluster.installation.run(
        "curl", "-sS", "-w", "\n%{http_code}", "-X", "POST", "-u", f"{client_id}:{password or secret}", url
    )
    body, _, seen = answer.rpartition("\n")
    assert int(seen) == status
    assert json.loads(body)["errors"][0]["code"] == code


def test_buildah_is_told_that_a_puller_may_not_push(cluster: Cluster) -> None:
    assert "denied" in cluster.push("PULL", IMAGE, code=125)


def test_the_admin_user_logs_in_once_it_is_enabled(cluster: Cluster) -> None:
    cluster.installation.cumulet("registry", "update", "acrdemo2ss", "--admin-enabled")
    admin = cluster.installation.cumulet("registry", "credential", "acrdemo2ss")
    registry = cluster.installation.environment["CUMULET_REGISTRY"]
    for password in admin["passwords"]:
        login = ("login", "--username", admin["username"], "--password", password["value"], registry)
        assert "Login Succeeded" in cluster.installation.run("skopeo", *login)


def test_without_its_secret_the_pod_waits_and_says_why(cluster: Cluster) -> None:
    warned = cluster.kubectl("apply", "-f", MANIFESTS)
    assert 'nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead' in warned
    cluster.wait(DEPLOYMENT, "jsonpath={.status.replicas}=1")
    pod = cluster.kubectl("get", "pods", *PODS, "-o", "jsonpath={.items[0].metadata.name}")
    cluster.wait_reason(pod, "ImagePullBackOff")
    message = cluster.events(pod, "Failed")
    assert "from registry acrdemo2ss.azurecr.io without credentials" in message
    assert "create a pull secret for acrdemo2ss.azurecr.io" in message
    assert "acrdemo2ss-secret" in cluster.events(pod, "FailedToRetrieveImagePullSecret")
    said = cluster.kubectl("logs", pod, code=1)
    assert f'container "acrdemo2ss-vn" in pod "{pod}" is waiting to start: trying and failing to pull image' in said
    said = cluster.kubectl("exec", pod, "--", "true", code=1)
    assert 'unable to upgrade connection: container not found ("acrdemo2ss-vn")' in said


def test_with_its_secret_the_same_pod_runs(cluster: Cluster) -> None:
    before = cluster.kubectl("get", "pods", *PODS, "-o", "jsonpath={.items[*].metadata.uid}")
    cluster.pull_secret("acrdemo2ss-secret", "PULL")
    assert "successfully rolled out" in cluster.kubectl("rollout", "status", DEPLOYMENT, "--timeout=60s")
    assert cluster.kubectl("get", "pods", *PODS, "-o", "jsonpath={.items[*].metadata.uid}") == before
    pod = cluster.kubectl("get", "pods", *PODS, "-o", "jsonpath={.items[0].metadata.name}")
    assert re.fullmatch(
        rf'Successfully pulled image "acrdemo2ss.azurecr.io/{IMAGE}" in \S+ \(\S+ including waiting\)\. '
        r"Image size: \d+ bytes\.",
        cluster.events(pod, "Pulled"),
    )
    assert f"Successfully assigned default/{pod} to {NODE}" in cluster.events(pod, "Scheduled")


def test_the_page_is_served(cluster: Cluster) -> None:
    assert PAGE in cluster.curl(f"http://{cluster.external_ip()}/")
    node_port = cluster.kubectl(
        "get", "service/acrdemo2ss-loadbalancer-service", "-o", "jsonpath={.spec.ports[0].nodePort}"
    )
    assert PAGE in cluster.curl(f"http://127.0.0.1:{node_port}/")


def test_kubectl_shows_it(cluster: Cluster) -> None:
    head, row = cluster.kubectl("get", "pods", "-o", "wide").splitlines()
    assert head.split() == [
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "AGE",
        "IP",
        "NODE",
        "NOMINATED",
        "NODE",
        "READINESS",
        "GATES",
    ]
    assert row.split()[1:4] == ["1/1", "Running", "0"]
    assert NODE in row
    assert re.search(rf"{NODE} +Ready +agent", cluster.kubectl("get", "nodes"))
    everything = cluster.kubectl("get", "all")
    for kind in ("pod/", "service/", "deployment.apps/", "replicaset.apps/"):
        assert kind in everything
    described = cluster.kubectl("describe", "pods", *PODS)
    reasons = re.findall(r"^ +(?:Normal|Warning) +(\w+)", described, re.MULTILINE)
    # Events of one second are shown in their order.
    assert [reason for reason in reasons if reason in {"Scheduled", "Pulled", "Created", "Started"}] == [
        "Scheduled", "Pulled", "Created", "Started",
    ]  # fmt: skip


def test_logs_and_exec(cluster: Cluster) -> None:
    assert "response:200" in cluster.kubectl("logs", DEPLOYMENT)
    assert cluster.kubectl("exec", "-i", DEPLOYMENT, "--", "/bin/busybox", "cat", stdin="to and fro") == "to and fro"
    cluster.kubectl("exec", DEPLOYMENT, "--", "/bin/busybox", "sh", "-c", "exit 7", code=7)
    # A command that ends with input under way still tells how it ended; here as clients of old carry it.
    command = ("kubectl", "exec", "-i", DEPLOYMENT, "--", "/bin/busybox", "sh", "-c", "exit 7")
    spdy = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}
    cluster.installation.run(*command, stdin="x" * 3_000_000, environment=spdy, code=7)


def test_what_a_container_group_cannot_do_is_told_at_once(cluster: Cluster) -> None:
    said = cluster.kubectl("attach", "-i", DEPLOYMENT, code=1)
    assert "has no standard input; set stdin" in said


def test_what_it_uses(cluster: Cluster) -> None:
    (line,) = cluster.kubectl("top", "pod", *PODS, "--containers", "--no-headers").splitlines()
    _, container, cpu, memory = line.split()
    assert container == "acrdemo2ss-vn"
    assert re.fullmatch(r"\d+m", cpu)
    assert re.fullmatch(r"[1-9]\d*Mi", memory) or memory == "0Mi"
    assert cluster.kubectl("top", "node", NODE, "--no-headers").split()[0] == NODE
    # What metrics-server asks a kubelet for.
    text = cluster.kubectl("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/metrics/resource")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["container_memory_working_set_bytes"].samples
    assert {sample.labels["container"] for sample in samples} == {container}
    assert all(sample.value > 0 and sample.timestamp for sample in samples)
    assert families["node_cpu_usage_seconds"].type == "counter"


def test_port_forward(cluster: Cluster) -> None:
    command = ["kubectl", "port-forward", DEPLOYMENT, ":80"]
    with subprocess.Popen(
        command, env=cluster.installation.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ->", process.stdout.readline())
        assert found is not None
        page = cluster.installation.run("curl", "-sS", f"http://127.0.0.1:{found[1]}/")
        process.terminate()
    assert PAGE in page


def test_scaling(cluster: Cluster) -> None:
    cluster.kubectl("scale", DEPLOYMENT, "--replicas=3")
    cluster.kubectl("rollout", "status", DEPLOYMENT, "--timeout=60s")
    pods = json.loads(cluster.kubectl("get", "pods", *PODS, "-o", "json"))["items"]
    assert [pod["spec"]["nodeName"] for pod in pods] == [NODE] * 3
    assert len({pod["status"]["podIP"] for pod in pods}) == 3
    cost = cluster.installation.cumulet("cost", "-o", "json")
    names = " ".join(row["name"] for row in cost)
    assert all(pod["metadata"]["name"] in names for pod in pods)


@pytest.mark.parametrize("rooms", [ROOMS[:3], ROOMS[3:6], ROOMS[6:]], ids=" ".join)
def test_rooms_that_are_killed_are_started_again(cluster: Cluster, rooms: tuple[str, ...]) -> None:
    before = cluster.installation.pids()
    for room in rooms:
        os.kill(before[room], signal.SIGKILL)
    # One pod goes and another comes: every room has a part in that.
    pod = cluster.kubectl("get", "pods", *PODS, "-o", "jsonpath={.items[0].metadata.name}")
    cluster.kubectl("delete", "pod", pod, "--grace-period=1")
    cluster.kubectl("rollout", "status", DEPLOYMENT, "--timeout=60s")
    assert PAGE in cluster.curl(f"http://{cluster.external_ip()}/")
    after = cluster.installation.pids()
    assert [name for name in ROOMS if before[name] != after[name]] == [*rooms]


def test_pods_keep_their_network_when_everything_is_killed(cluster: Cluster) -> None:
    read = ("get", "pods", *PODS, "-o", "jsonpath={.items[*].status.podIP}")
    before = cluster.kubectl(*read).split()
    assert all(PAGE in cluster.curl(f"http://{address}/") for address in before)
    pids = cluster.installation.pids()
    supervisor = json.loads((cluster.installation.data_dir / "run" / "pids.json").read_text())["supervisor"]
    handles = [os.pidfd_open(pid) for pid in (supervisor, *pids.values())]
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):  # rooms end with their supervisor
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    for handle in handles:
        select.select([handle], [], [])
        os.close(handle)
    # The network is the kernel's.
    assert all(PAGE in cluster.curl(f"http://{address}/") for address in before)
    link = router.link_name(load(cluster.installation.data_dir))
    subprocess.run(["ip", "link", "delete", link], check=True)
    cluster.installation.up()
    assert all(PAGE in cluster.curl(f"http://{address}/") for address in before)
    assert sorted(cluster.kubectl(*read).split()) == sorted(before)


def test_state_survives_a_restart(cluster: Cluster) -> None:
    pods = cluster.kubectl("get", "pods", *PODS, "-o", "name")
    cluster.installation.down()
    assert traces(cluster.installation) == []
    cluster.installation.up()
    cluster.kubectl("rollout", "status", DEPLOYMENT, "--timeout=60s")
    cluster.wait(f"pods {PODS[0]} {PODS[1]}", "condition=Ready")
    assert cluster.kubectl("get", "pods", *PODS, "-o", "name") == pods
    assert PAGE in cluster.curl(f"http://{cluster.external_ip()}/")
    assert cluster.installation.cumulet("registry", "tags", "acrdemo2ss", "app3/acr-app3") == ["v1"]


def test_nothing_is_left(cluster: Cluster) -> None:
    cluster.kubectl("delete", "-f", MANIFESTS)
    cluster.kubectl("delete", "pods", *PODS, "--grace-period=1", "--ignore-not-found")
    cluster.wait(f"pods {PODS[0]} {PODS[1]}", "delete")
    cluster.installation.cumulet("registry", "delete", "acrdemo2ss")
    cluster.installation.cumulet("group", "delete", "aks-rg2")
    cluster.installation.down()
    assert traces(cluster.installation) == []


def traces(installation: Installation) -> list[str]:
    """Mounts, processes, addresses, namespaces, routes and tables of an installation."""
    mark = str(installation.data_dir)
    pods = installation.pod_cidr.removesuffix("0.0/16")
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line]
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    processes = [command.decode() for command in commands if mark.encode() in command]
    network = []
    for command in ("ip -o address", "ip -4 route", "ip netns list", "nft list tables"):
        listed = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
        network += listed.splitlines()
    words = (f" {pods}", installation.service_cidr, router.installation_id(load(installation.data_dir)))
    return mounts + processes + [line for line in network if any(word in f" {line}" for word in words)]
