"""What a pod's creator cannot reach: the host behind a volume. The same boundaries as of container groups, by kubectl."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.cluster import IMAGE, LOGIN_SERVER, Cluster

VOLUMES = [{"name": "v", "emptyDir": {}}]


@pytest.fixture(scope="module")
def puller(cluster: Cluster) -> Cluster:
    """A cluster whose pods can pull."""
    cluster.pull_secret("good", "PULL")
    return cluster


def runs(name: str, *command: str, **mount: Any) -> dict[str, Any]:
    """A container with the volume `v` at `/v`."""
    mounts = [{"name": "v", "mountPath": "/v", **mount}]
    return {"name": name, "image": f"{LOGIN_SERVER}/{IMAGE}", "command": [*command], "volumeMounts": mounts}


def test_a_sub_path_leads_to_no_folder_of_the_host(puller: Cluster, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir(mode=0o700)
    link = runs("link", "/bin/busybox", "ln", "-s", str(host), "/v/way")
    web = runs("web", "/bin/busybox", "touch", "/v/made", subPath="way/folder")
    puller.pod(
        "way-out", secret="good", initContainers=[link], containers=[web], volumes=VOLUMES, restartPolicy="Never"
    )
    puller.wait("pod way-out", "jsonpath={.status.phase}=Failed")
    status = "{.status.initContainerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}"
    assert puller.kubectl("get", "pod", "way-out", "-o", f"jsonpath={status}") == "0 StartError"
    assert "is not a folder or file of the volume" in puller.events("way-out", "Failed")
    assert stat.S_IMODE(host.stat().st_mode) == 0o700
    assert list(host.iterdir()) == []


def test_a_sub_path_of_the_environment_is_one_of_the_volume(puller: Cluster) -> None:
    web = runs("web", "/bin/busybox", "ls", "/whole", subPathExpr="$(NAME)-folder")
    web["env"] = [{"name": "NAME", "value": "own"}]
    web["volumeMounts"].append({"name": "v", "mountPath": "/whole"})
    puller.pod("expression", secret="good", containers=[web], volumes=VOLUMES, restartPolicy="Never")
    puller.wait("pod expression", "jsonpath={.status.phase}=Succeeded")
    assert puller.kubectl("logs", "expression").split() == ["own-folder"]


def test_a_sub_path_of_the_environment_leads_out_of_no_volume(puller: Cluster) -> None:
    web = runs("web", "/bin/true", subPathExpr="$(WAY)/folder")
    web["env"] = [{"name": "WAY", "value": "../.."}]
    puller.pod("expression-out", secret="good", containers=[web], volumes=VOLUMES)
    message = "unable to provision SubPath `../../folder`: must not contain '..'"
    assert message in puller.events("expression-out", "Failed")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("over-proc", {"mountPath": "/proc/self"}, "The mount path '/proc/self' cannot be replaced"),
        (
            "propagation",
            {"mountPropagation": "HostToContainer"},
            'volumeMounts[0].mountPropagation "HostToContainer" is not supported',
        ),
    ],
)
def test_a_mount_that_no_group_can_have_is_refused_by_name(
    puller: Cluster, name: str, change: dict[str, Any], message: str
) -> None:
    web = runs("web", "/bin/true", **change)
    web["env"] = [{"name": "WAY", "value": "../.."}]
    puller.pod(name, secret="good", containers=[web], volumes=VOLUMES, restartPolicy="Never")
    puller.wait(f"pod {name}", "jsonpath={.status.phase}=Failed")
    assert message in puller.events(name, "ProviderCreateFailed")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("folder-out", {"workingDir": "/proc/self/fd/8"}, "The workingDir '/proc/self/fd/8' is not an absolute path"),
        (
            "apparmor",
            {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}},
            'appArmorProfile.type "RuntimeDefault" is not supported',
        ),
    ],
)
def test_a_container_that_no_group_can_have_is_refused_by_name(
    puller: Cluster, name: str, change: dict[str, Any], message: str
) -> None:
    containers = [{**runs("web", "/bin/true"), **change}]
    puller.pod(name, secret="good", containers=containers, volumes=VOLUMES, restartPolicy="Never")
    puller.wait(f"pod {name}", "jsonpath={.status.phase}=Failed")
    assert message in puller.events(name, "ProviderCreateFailed")


def test_more_than_a_group_can_have_is_said_in_azures_words(puller: Cluster) -> None:
    web = {**runs("web", "/bin/true"), "resources": {"requests": {"cpu": "5", "memory": "1G"}}}
    puller.pod("too-large", secret="good", containers=[web], volumes=VOLUMES)
    message = puller.events("too-large", "ProviderCreateFailed")
    assert (
        "ServiceUnavailable: The requested resource is not available in the location 'eastus' at this moment."
        in message
    )
    assert "Resource requested: '5' CPU '1' GB memory 'Linux' OS" in message
