# ruff: noqa: F811  (fixtures of another folder are imported by the names under which they are used)
"""A container group is what it may be, or is refused where it is put; what is taken always comes to an end.

Every case here once made something on the host, or left its group `Creating` for ever, or answered 500.
"""

from __future__ import annotations

import asyncio
import copy
import os
import stat
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cumulet.common.config import DEFAULT_PORTS
from cumulet.common.router import installation_id
from cumulet.instances.actions.targets import open_targets
from cumulet.instances.cleanup import cleanup
from cumulet.instances.groups.folders import Folders
from cumulet.instances.groups.group import Group as ContainerGroup
from cumulet.instances.groups.identities import Identities
from cumulet.instances.groups.logins import Logins
from cumulet.instances.groups.services import Services
from cumulet.instances.groups.workload_environment import WorkloadEnvironment
from cumulet.instances.images.cache import Images
from cumulet.instances.metering.meter import Meter
from cumulet.instances.model.regions import Maximum
from cumulet.instances.runtime.conmon import Runtime
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.sandbox.file_shares import FileShares
from cumulet.instances.sandbox.git_repositories import GitRepositories
from cumulet.instances.sandbox.network import Network
from cumulet.instances.sandbox.user_namespaces import UserNamespaces
from cumulet.instances.store.records import GroupRecord, GroupStatus
from cumulet.instances.store.store import Store
from cumulet.instances.validation.request import parse_group
from cumulet.up.install import install
from tests.installation import free_pod_cidr
from tests.instances.conftest import door, machine, registry, room, shared_config  # noqa: F401
from tests.instances.door import (
    FrontDoor,
    Group,
    RoomProcess,
    container,
    front_door,
    group,
    is_over,
    is_running,
    running_room,
    shell,
    state_of,
)
from tests.instances.images import Registry, busybox_layer, entry, layer, peer_registry
from tests.security.images import push_with_configuration

WEB = "containers[0].properties"


def with_value(path: str, value: Any) -> Group:
    """A group that is right but for one property, which is named as errors name it."""
    mounts = [{"name": "v", "mountPath": "/v"}]
    probe = {"httpGet": {"port": 80, "httpHeaders": [{"name": "a", "value": "b"}]}}
    body = group(
        container(
            volumeMounts=mounts,
            livenessProbe=probe,
            environmentVariables=[{"name": "A", "value": "b"}],
            securityContext={"runAsUser": 0},
            ports=[{"port": 80}],
        ),
        volumes=[{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"a": "YQ=="}}],
        dnsConfig={"nameServers": ["10.0.0.10"]},
        ipAddress={"type": "Public", "ports": [{"port": 80}]},
    )
    *parents, last = path.replace("[", ".[").split(".")
    at: Any = body["properties"]
    for part in parents:
        at = at[int(part.strip("[]"))] if part.startswith("[") else at.setdefault(part, {})
    at[int(last.strip("[]")) if last.startswith("[") else last] = value
    return body


CONTROL = ("\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\u2028")

STRINGS: list[tuple[str, Any]] = [
    *(("volumes[0].name", name) for name in ("..", ".", ".files", "a/b", "V", "ⅴ", "a" * 64, "", "-a", "a\n", "v ")),
    ("volumes[1].name", "v"),
    *(("containers[0].name", name) for name in ("..", "a/b", "W", "", "a\n", "ſ")),
    *((f"{WEB}.volumeMounts[0].mountPath", path)
      for path in ("/", "//", "/.", "/..", "/a/../b", "a", "", "/a:b", "/proc", "/proc/1", "//proc//sys", "/./proc", "/sys/fs",
                   "/dev", "/dev/shm/a", "/dev/../proc", *(f"/a{char}b" for char in CONTROL), "/" + "a" * 256, "/a" * 2048)),
    *((f"{WEB}.volumeMounts[0].subPath", path) for path in ("/a", "..", "a/../..", "a\0b", "a\nb", "a" * 256)),
    (f"{WEB}.volumeMounts[0].name", "w"),
    *(("hostname", name) for name in ("a b", "a\nb", "a\0", "", "-a", "a" * 65, "a..b", "ä", "a/b", "1.2.3.4\tevil")),
    *((f"{WEB}.workingDir", path) for path in ("a", "/proc/self/fd/7", "/../proc/self", "/a/../proc/self", "/a\0")),
    *((f"{WEB}.image", image)
      for image in ("", "a/B", "a b", "a?b=c.d/e", "x.y@z/w", "host.io:99999999/a", "a:" + "b" * 200, "x.y\n/a", "a@sha256:1")),
    *((f"{WEB}.environmentVariables[0].name", name) for name in ("", "A=B", "A\0", "A\nB", "ä")),
    (f"{WEB}.securityContext.capabilities", {"add": ["NET_ADMIN\n"]}),
    (f"{WEB}.livenessProbe.httpGet.path", "/\r\nX: y"),
    (f"{WEB}.livenessProbe.httpGet.scheme", "file"),
    *((f"{WEB}.livenessProbe.httpGet.httpHeaders[0]", {"name": name, "value": value})
      for name, value in (("a b", ""), ("", ""), ("a\r\n", ""), ("a", "b\r\nc: d"), ("a", "\0"))),
    (f"{WEB}.livenessProbe", {"httpGet": {"port": 80}, "tcpSocket": {"port": 80}}),
    (f"{WEB}.livenessProbe", {}),
    (f"{WEB}.livenessProbe", {"exec": {"command": []}}),
    (f"{WEB}.livenessProbe", {"exec": {"command": ["a\0"]}}),
    *(("dnsConfig.nameServers[0]", server) for server in ("", "a.b", "1.1.1.1\noptions debug", "1.1.1", "::1%eth0\n")),
    ("dnsConfig.nameServers", []),
    ("dnsConfig.nameServers", ["1.1.1.1"] * 4),
    *(("dnsConfig.searchDomains", text) for text in ("a\nnameserver 6.6.6.6", "a\tb", "a..b", "-", " ".join("a" * 33))),
    *(("dnsConfig.options", text) for text in ("ndots:5\nnameserver 6.6.6.6", "ndots:x", "a" * 40, "ndots:999999")),
    ("ipAddress.dnsNameLabel", "a.b"),
    *(("imageRegistryCredentials[0].server", server) for server in ("https://a", "a/b", "a b", "", "a\n", "x" * 256)),
    *((f"imageRegistryCredentials[0].{name}", "a\r\nb") for name in ("username", "password")),
    *(("volumes[1].secret", {name: "YQ=="})
      for name in ("", ".", "..", "/a", "a/", "a//b", "a/../b", "a/./b", "a\0b", "a\nb", "a" * 256)),
    *(("volumes[1].secret", {"a": content}) for content in ("a", "ä", "YQ==\n", "=")),
    ("volumes[1].secret", {"a": "YQ==", "a/b": "YQ=="}),
    ("volumes[0].emptyDir", {"medium": "HugePages"}),
    ("volumes[0]", {"name": "v"}),
    ("volumes[0]", {"name": "v", "emptyDir": {}, "secret": {}}),
    ("restartPolicy", "Sometimes"),
    ("sku", "Confidential"),
    ("priority", "High"),
]  # fmt: skip

NUMBERS: list[tuple[str, Any]] = [
    *((f"{WEB}.ports[0].port", port) for port in (0, -1, 65536, 10**400, 1.5, True, "80")),
    (f"{WEB}.ports[0].protocol", "SCTP"),
    ("ipAddress.ports[0].port", 0),
    *((f"{WEB}.livenessProbe.{name}", value)
      for name in ("initialDelaySeconds", "periodSeconds", "timeoutSeconds") for value in (-1, 2**31, 1e308)),
    *((f"{WEB}.livenessProbe.{name}", 0) for name in ("failureThreshold", "successThreshold")),
    (f"{WEB}.livenessProbe.httpGet.port", 70000),
    *((f"{WEB}.securityContext.{name}", value)
      for name in ("runAsUser", "runAsGroup") for value in ("abc", -1, 2**31, 10**30, 1.5, True, "1" * 5000)),
    *(("volumes[1].defaultMode", value) for value in (-1, 0o1000, 2**40)),
    *(("terminationGracePeriodSeconds", value) for value in (-1, 2**31, 1e9)),
    *((f"{WEB}.resources.requests.{name}", value)
      for name in ("cpu", "memoryInGB") for value in (-1e-9, 0, -1, 1e-300, "1", True, 10**400)),
    *((f"{WEB}.resources.limits", {name: -1e-9}) for name in ("cpu", "memoryInGB")),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), [*STRINGS, *NUMBERS])
async def test_a_property_that_is_not_valid_is_refused_by_name(door: FrontDoor, path: str, value: Any) -> None:
    try:
        answer = await door.call("PUT", "refused", with_value(path, value), status=400)
        error = answer["error"]
        assert path.partition("[")[0].partition(".")[0] in f"{error.get('target', '')} {error['message']}"
        assert len(error["message"]) < 500
        await door.call("GET", "refused", status=404)
    finally:
        await door.call("DELETE", "refused?gracePeriodSeconds=0")


@pytest.mark.parametrize("path", [
    "unknown", "containers[0].unknown", f"{WEB}.unknown", f"{WEB}.securityContext.unknown", f"{WEB}.resources.unknown",
    f"{WEB}.livenessProbe.unknown", f"{WEB}.livenessProbe.httpGet.unknown", f"{WEB}.volumeMounts[0].unknown",
    f"{WEB}.ports[0].unknown", f"{WEB}.environmentVariables[0].unknown", "volumes[0].unknown", "volumes[0].emptyDir.unknown",
    "dnsConfig.unknown", "ipAddress.unknown", "imageRegistryCredentials[0].unknown",
])  # fmt: skip
async def test_a_property_that_nobody_knows_is_refused_by_name(door: FrontDoor, path: str) -> None:
    answer = await door.call("PUT", "unknown", with_value(path, 1), status=400)
    assert answer["error"]["code"] in ("InvalidRequestContent", "InvalidSecurityContext")
    assert "unknown" in answer["error"]["message"]


@pytest.mark.parametrize(("path", "value"), [
    ("diagnostics", {"logAnalytics": {"workspaceId": "a", "workspaceKey": "b"}}),
    ("encryptionProperties", {"keyName": "a"}),
    ("extensions", [{"name": "a"}]),
    ("confidentialComputeProperties", {"ccePolicy": "a"}),
    (f"{WEB}.resources.requests.gpu", {"count": 1, "sku": "V100"}),
    (f"{WEB}.environmentVariables[0].secureValueReference", "a"),
    (f"{WEB}.configMap.keyValuePairs", {"a": "b"}),
    ("imageRegistryCredentials[0].identityUrl", "https://a"),
    ("volumes[0].secretReference", {"a": "b"}),
])  # fmt: skip
async def test_what_azure_has_and_we_have_not_is_refused_by_name(door: FrontDoor, path: str, value: Any) -> None:
    answer = await door.call("PUT", "unsupported", with_value(path, value), status=400)
    assert answer["error"]["code"] == "UnsupportedProperty"
    assert answer["error"]["target"] == f"properties.{path}"


async def test_what_was_got_can_be_put_and_nulls_are_nothing(door: FrontDoor) -> None:
    body = group(shell("sleep 1000"), diagnostics=None, subnetIds=[], dnsConfig=None)
    body |= {"identity": None, "zones": []}
    await door.call("PUT", "again", body, status=201)
    got = copy.deepcopy(await door.until("again", is_running))
    answer = await door.call("PUT", "again", got, status=200)
    assert answer["properties"]["containers"][0]["properties"]["image"]
    await door.call("DELETE", "again?gracePeriodSeconds=0")


@pytest.mark.parametrize("location", ["east\r\nX-Evil: yes", "", " ", "east/us", "ſ", "a" * 65, 5, None])
async def test_a_location_is_a_name(door: FrontDoor, location: Any) -> None:
    await door.call("PUT", "placed", {**group(container()), "location": location}, status=400)
    await door.call("GET", "placed", status=404)


async def test_a_location_is_shown_as_azure_shows_it(door: FrontDoor) -> None:
    answer = await door.call("PUT", "placed", {**group(container()), "location": "East US"}, status=201)
    assert answer["location"] == "eastus"
    await door.call("DELETE", "placed?gracePeriodSeconds=0")


@pytest.mark.parametrize("tags", [{"a": "b\n"}, {"": "b"}, {"a" * 513: ""}, {"a": "b" * 257}, {"a": 5}, ["a"],
                                  {str(number): "" for number in range(51)}])  # fmt: skip
async def test_tags_are_bounded(door: FrontDoor, tags: Any) -> None:
    await door.call("PUT", "tagged", {**group(container()), "tags": tags}, status=400)


@pytest.mark.parametrize("count", [10_001, 250_000, 1_000_000])
async def test_a_million_environment_variables_are_refused(door: FrontDoor, count: int) -> None:
    body = with_value(f"{WEB}.environmentVariables", [{"name": "A"}] * count)
    await door.call("PUT", "many", body, status=400 if count < 300_000 else 413)
    await door.call("GET", "many", status=404)


@pytest.mark.parametrize("name", ["command", "args", "environmentVariables"])
async def test_a_command_line_is_one_that_can_be_run(door: FrontDoor, name: str) -> None:
    for words in (["a\0b"], ["a" * 131_073], ["a" * 100_000] * 12, ["a"] * 10_001):
        value: Any = [{"name": "A", "secureValue": word} for word in words] if name.startswith("env") else words
        answer = await door.call("PUT", "words", with_value(f"{WEB}.{name}", value), status=400)
        assert len(answer["error"]["message"]) < 500
    longest = with_value(f"{WEB}.command", ["/bin/echo", "a" * 131_000, *(["b" * 131_000] * 6)])
    longest["properties"]["restartPolicy"] = "Never"
    await door.call("PUT", "words", longest)
    found = await door.until("words", is_over)
    assert state_of(found)["exitCode"] == 0
    await door.call("DELETE", "words")


# How much.


@pytest.mark.parametrize(("requests", "said"), [
    ([(5, 1)], "'5' CPU '1' GB"), ([(1, 17)], "'1' CPU '17' GB"), ([(2, 8.5), (2.5, 8)], "'4.5' CPU '16.5' GB"),
    ([(1e308, 1e308)], "'1e+308' CPU '1e+308' GB"), ([(1e308, 1), (1e308, 1)], "'inf' CPU '2' GB"),
])  # fmt: skip
async def test_more_than_there_is_is_refused_in_azures_words(
    door: FrontDoor, requests: list[tuple[float, float]], said: str
) -> None:
    containers = [
        container(f"web-{number}", resources={"requests": {"cpu": cpu, "memoryInGB": memory}})
        for number, (cpu, memory) in enumerate(requests)
    ]
    answer = await door.call("PUT", "large", group(*containers), status=409)
    assert answer["error"]["code"] == "ServiceUnavailable"
    assert answer["error"]["message"] == (
        "The requested resource is not available in the location 'eastus' at this moment. Please retry with a different "
        f"resource request or in another location. Resource requested: {said} memory 'Linux' OS"
    )


@pytest.mark.parametrize(("limits", "code"), [
    ({"cpu": 0.4}, "ResourceLimitsLessThanRequests"), ({"memoryInGB": 0.4}, "ResourceLimitsLessThanRequests"),
    ({"cpu": 1e308}, "ContainerLimitGreaterThanContainerGroupTotalRequest"),
    ({"memoryInGB": 17}, "ContainerLimitGreaterThanContainerGroupTotalRequest"),
])  # fmt: skip
async def test_limits_are_between_the_request_and_the_most(door: FrontDoor, limits: Group, code: str) -> None:
    answer = await door.call("PUT", "limited", with_value(f"{WEB}.resources.limits", limits), status=400)
    assert answer["error"]["code"] == code


async def test_as_much_as_there_is_runs(door: FrontDoor) -> None:
    parts = [
        container(f"web-{number}", command=["/bin/true"], resources={"requests": {"cpu": 0.1, "memoryInGB": 0.4}})
        for number in range(40)
    ]
    await door.call("PUT", "full", group(*parts, restartPolicy="Never"))
    found = await door.until("full", is_over)
    assert found["properties"]["instanceView"]["state"] == "Succeeded"
    await door.call("DELETE", "full")


# Queries and calls on containers.


@pytest.mark.parametrize("query", [
    "gracePeriodSeconds=99999999999999", "gracePeriodSeconds=-1", "gracePeriodSeconds=%D9%A1",
    "gracePeriodSeconds=" + "9" * 5000,
])  # fmt: skip
async def test_a_grace_is_a_number_of_seconds(door: FrontDoor, query: str) -> None:
    await door.call("PUT", "graced", group(shell("sleep 1000")))
    await door.call("DELETE", f"graced?{query}", status=400)
    await door.call("DELETE", "graced?gracePeriodSeconds=0")


async def test_what_is_asked_of_logs_and_exec_is_checked(door: FrontDoor) -> None:
    await door.call("PUT", "asked", group(shell("sleep 1000")))
    await door.until("asked", is_running)
    for query in ("sinceSeconds=999999999999", "tail=%D9%A1", "limitBytes=-1", "tail=" + "9" * 5000):
        await door.call("GET", f"asked/containers/web/logs?{query}", status=400)
    for command in ("echo 'a", "a\0", ["a\0"], ["a" * 200_000], [], "", 5, [5]):
        await door.call("POST", "asked/containers/web/exec", {"command": command}, status=400)
    await door.call("GET", f"{door.provider}/containerGroups?watch=true&since={'9' * 5000}", status=400)
    await door.call("DELETE", "asked?gracePeriodSeconds=0")


# Images.

CONFIGURATIONS: list[Any] = [
    None, [], 5, "a", {"config": 5}, {"config": []}, {"config": {"User": 5}}, {"config": {"Env": {"A": "b"}}},
    {"config": {"Env": [5]}}, {"config": {"Entrypoint": "/bin/true"}}, {"config": {"Cmd": 5}}, {"config": {"WorkingDir": 5}},
    {"rootfs": 5}, {"rootfs": {"diff_ids": 5}}, {"rootfs": {"diff_ids": [5]}}, {"config": {"Cmd": ["/bin/true\0"]}},
    {"config": {"Env": ["A=b"] * 20_000}},
]  # fmt: skip


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
async def test_an_image_whose_configuration_is_none_says_so(
    door: FrontDoor, registry: Registry, configuration: Any
) -> None:
    push_with_configuration(registry, "odd", "v1", [busybox_layer()], configuration)
    await door.call("PUT", "odd", group(container(image="odd:v1"), restartPolicy="Never"))
    found = await door.until("odd", lambda found: state_of(found).get("detailStatus") == "ImagePullBackOff")
    assert any("configuration is not valid" in message for message in messages(found))
    await door.call("DELETE", "odd")


@pytest.mark.parametrize(("execution", "why"), [
    ({}, "no command specified"),
    ({"Cmd": ["/bin/true"], "User": "nobody"}, "unable to find user nobody"),
    ({"Cmd": ["/bin/true"], "User": "0:nobody"}, "unable to find group nobody"),
    ({"Cmd": ["/bin/true"], "User": "9" * 5000}, "unable to find user 999"),
    ({"Cmd": ["/bin/true"], "User": "\u0661"}, "unable to find user"),
    ({"Cmd": ["/bin/true"], "Env": ["A=" + "b" * 200_000]}, "a string is longer than"),
    ({"Cmd": ["/bin/true"], "Env": ["A=b"] * 9_000, "Labels": {}}, None),
    ({"Cmd": ["/bin/true"], "Env": [f"A{number}=" + "b" * 1000 for number in range(2000)]}, "larger than"),
    ({"Cmd": ["/bin/true"], "WorkingDir": "/proc/self/fd/7"}, "is not an absolute path outside /proc"),
    ({"Cmd": ["/bin/true"], "WorkingDir": "www"}, "is not an absolute path outside /proc"),
])  # fmt: skip
async def test_an_image_that_cannot_be_started_says_why(
    door: FrontDoor, registry: Registry, execution: Group, why: str | None
) -> None:
    push_with_configuration(registry, "unable", "v1", [busybox_layer()], {"config": execution})
    await door.call("PUT", "unable", group(container(image="unable:v1"), restartPolicy="Never"))
    found = await door.until("unable", is_over)
    if why is None:
        assert state_of(found)["exitCode"] == 0
    else:
        assert state_of(found)["detailStatus"] == "StartError"
        assert any(why in message for message in messages(found)), messages(found)
    await door.call("DELETE", "unable")


def messages(found: Group) -> list[str]:
    """What the events of the first container say."""
    return [
        event["message"] for event in found["properties"]["containers"][0]["properties"]["instanceView"]["events"]
    ]


ROW = b"user:x:1001:1002:a user of the image:/:/bin/sh\n"
OTHER = ROW.replace(b"user", b"other")
OUT = "../../../../../../../../../../.."


@pytest.mark.parametrize(("entries", "why"), [
    ([entry("etc/passwd", OTHER * (8 * 1024 * 1024 // len(OTHER)))], "/etc/passwd of the image is larger than"),
    ([entry("etc/passwd", b"a" * 200_000)], "/etc/passwd of the image is larger than"),
    ([entry("etc/passwd", b"user:x:one:two::/:\nuser\n\xff:::\nuser:x:" + b"9" * 5000 + b":1::/:\n" + ROW)], None),
    ([entry("etc/passwd", type=tarfile.FIFOTYPE)], "unable to find user user"),
    ([entry("etc/passwd", type=tarfile.DIRTYPE, mode=0o755)], "unable to find user user"),
    ([entry("etc/passwd", type=tarfile.SYMTYPE, linkname="passwd")], "unable to find user user"),
    ([entry("etc/passwd", type=tarfile.SYMTYPE, linkname=f"{OUT}/data/passwd"), entry("data/passwd", ROW)], None),
    ([entry("etc", type=tarfile.SYMTYPE, linkname="/data"), entry("data/passwd", ROW), entry("data/group", b"")], None),
])  # fmt: skip
async def test_accounts_are_looked_up_within_the_image(
    door: FrontDoor,
    room: RoomProcess,
    registry: Registry,
    entries: list[tuple[tarfile.TarInfo, bytes]],
    why: str | None,
) -> None:
    base = layer(
        entry("bin", type=tarfile.DIRTYPE, mode=0o755),
        entry("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755),
        *(entry(name, type=tarfile.DIRTYPE, mode=0o755) for name in ("data",)),
        *([] if entries[0][0].name == "etc" else [entry("etc", type=tarfile.DIRTYPE, mode=0o755)]),
        *entries,
    )
    configuration = {"config": {"User": "user", "Cmd": ["/bin/busybox", "id", "-u"]}}
    push_with_configuration(registry, "accounts", "v1", [base], configuration)
    await door.call("PUT", "accounts", group(container(image="accounts:v1"), restartPolicy="Never"))
    found = await door.until("accounts", is_over)
    if why is None:
        assert (await door.call("GET", "accounts/containers/web/logs"))["content"].splitlines().count("1001") == 1
    else:
        assert any(why in message for message in messages(found)), messages(found)
    assert room.peak_memory() < 400 * 1024 * 1024
    await door.call("DELETE", "accounts")


async def test_an_account_database_is_not_read_into_memory(
    door: FrontDoor, room: RoomProcess, registry: Registry
) -> None:
    """The file has far more rows than the room may read."""
    push_with_configuration(
        registry,
        "rows",
        "v1",
        [busybox_layer(), layer(entry("etc/passwd", OTHER * (200 * 1024 * 1024 // len(OTHER))))],
        {"config": {"User": "nobody", "Cmd": ["/bin/true"]}},
    )
    before = room.peak_memory()
    await door.call("PUT", "rows", group(container(image="rows:v1"), restartPolicy="Never"))
    found = await door.until("rows", is_over)
    assert any("/etc/passwd of the image is larger than" in message for message in messages(found))
    assert room.peak_memory() < before + 64 * 1024 * 1024
    await door.call("DELETE", "rows")


# What a room does where it cannot do what was asked.


@pytest.fixture
def small_room(tmp_path: Path) -> Iterator[RoomProcess]:
    """A room with four addresses for groups, and a registry with the image of `container()`."""
    network = free_pod_cidr().replace("/16", "/29")
    config = install(tmp_path / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0), pod_cidr=network)
    with peer_registry(config, tmp_path / "peer") as registry, running_room(config) as running:
        registry.push("web:v1", [busybox_layer()], Cmd=["sleep", "600"])
        yield running


def says(reason: str) -> Callable[[Group], bool]:
    """Whether a group says why it has no sandbox."""

    def find(found: Group) -> bool:
        events = found["properties"]["instanceView"]["events"]
        return any(event["name"] == "FailedCreatePodSandBox" and reason in event["message"] for event in events)

    return find


async def test_a_group_without_an_address_says_why_and_waits_for_one(small_room: RoomProcess) -> None:
    async with front_door(small_room.config) as door:
        for name in ("first", "a", "b", "c"):
            await door.call("PUT", name, group(container()))
            await door.until(name, lambda found: "ip" in found["properties"]["ipAddress"])
        await door.call("PUT", "second", group(container(), restartPolicy="Never"))
        found = await door.until("second", says("no address is left"))
        assert found["properties"]["instanceView"]["state"] == "Pending"
        await door.call("DELETE", "first?gracePeriodSeconds=0")
        await door.until("second", lambda found: "ip" in found["properties"]["ipAddress"])
        await door.call("DELETE", "second")


async def test_a_group_whose_folder_cannot_be_made_says_why_and_tries_again(small_room: RoomProcess) -> None:
    folder = small_room.config.room_dir("instances") / "sandboxes"
    folder.write_text("no folder")
    async with front_door(small_room.config) as door:
        await door.call("PUT", "nowhere", group(container(), volumes=[{"name": "v", "emptyDir": {}}]))
        await door.until("nowhere", says("Not a directory"))
        folder.unlink()
        while not folder.is_dir():
            await door.call("GET", "nowhere")
        await door.call("DELETE", "nowhere")
        await door.until_gone("nowhere")


async def test_a_failure_that_nobody_foresaw_is_told_and_tried_again(tmp_path: Path) -> None:
    """No request is known to lead to one; a folder that no path can be stands for it."""
    config = install(tmp_path / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0), pod_cidr=free_pod_cidr())
    folder = config.room_dir("instances")
    folder.mkdir(mode=0o700, exist_ok=True)
    store = Store(folder)
    store.open()
    network = Network(config, set())
    try:
        await network.open(())
        async with aiohttp.ClientSession() as session, open_targets(config.egress()) as targets:
            changed: asyncio.Queue[int] = asyncio.Queue()
            services = Services(
                store,
                Images(folder / "images", session, lambda _: False, config.image_limits, dict),
                network,
                Runtime(folder / "state"),
                Meter(store, folder, "eastus"),
                targets,
                installation_id(config),
                lambda record: changed.put_nowait(sum(event.count for event in record.status.events)),
                lambda record: None,
                UserNamespaces(config, folder / "images"),
                Logins(session, Identities(session, config.url("identity"), config.tenant_id), lambda _: False),
                FileShares([]),
                DiskFolders(folder / "disks"),
                GitRepositories(config, config.egress()),
                WorkloadEnvironment(folder / "header.key", has_endpoint=True),
                lambda _: [],
            )
            asked = parse_group("odd", "eastus", group(container()), Maximum(4, 16))
            record = GroupRecord(str(uuid.uuid4()), "/odd", "/s/s/r/g/odd", "eastus", {}, asked, GroupStatus())
            await store.put(record)
            running = ContainerGroup(record, Folders(Path("no\0path"), Path("none")), services)
            running.start()
            while await changed.get() < 2:
                pass
            (event,) = record.status.events
            reason = "an internal error (ValueError); the log of the room 'instances' has more"
            assert (event.name, event.message) == ("FailedSync", f"Error syncing pod, skipping: {reason}")
            assert record.status.state == "Pending"
            running.detach()
    finally:
        network.close()
        store.close()
        cleanup(config)


# Secrets.

SECRET, PASSWORD = "a-value-that-is-secure", "pull-secret"
PROBE = {
    "exec": {"command": ["/bin/sh", "-c", f'[ "$SECRET" = {SECRET[::-1]} ]']},
    "periodSeconds": 1,
    "failureThreshold": 1,
}


async def test_secure_values_are_in_no_file_and_no_command_line(door: FrontDoor, room: RoomProcess) -> None:
    secret = SECRET[::-1]
    asked = shell(
        "sleep 1000",
        environmentVariables=[{"name": "OPEN", "value": "an-open-value"}, {"name": "SECRET", "secureValue": secret}],
        readinessProbe=PROBE,
    )
    is_ready = lambda found: found["properties"]["containers"][0]["properties"]["instanceView"]["ready"]  # noqa: E731
    await door.call("PUT", "secure", group(asked))
    await door.until("secure", is_running)
    await door.until("secure", is_ready)
    for _ in range(2):
        data = files_with(room.config.data_dir, secret, PASSWORD)
        assert data == []
        room.stop(kill=True)
        room.start()
        await door.until("secure", is_ready)
    assert files_with(room.config.data_dir, "an-open-value"), "the search finds what is there"
    await door.call("DELETE", "secure?gracePeriodSeconds=0")


def files_with(folder: Path, *texts: str) -> list[str]:
    """The files on the folder's own disk that have one of the texts in them, and command lines of other processes."""
    wanted, device = [text.encode() for text in texts], folder.stat().st_dev
    found = []
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if (Path(path) / name).lstat().st_dev == device and name != "layers"]
        for file in (Path(path) / name for name in names):
            if stat.S_ISREG(file.lstat().st_mode) and any(text in file.read_bytes() for text in wanted):
                found.append(str(file))
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes()
        except OSError:
            continue
        if any(text in command for text in wanted) and int(process.parent.name) != os.getpid():
            found.append(str(process))
    return found
