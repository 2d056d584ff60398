"""The boundary between the instances room and registries, and between tenants who pull from them."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import socket
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.common import digests
from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.common.egress import Exempt
from cumulet.instances.images.budget import Budget, LayerError
from cumulet.instances.images.errors import PullError
from cumulet.instances.images.pace import paced
from cumulet.instances.images.platforms import GOARCH
from cumulet.instances.images.unpack import unpack
from cumulet.up.install import install
from tests.installation import free_pod_cidr
from tests.instances.door import FrontDoor, front_door, group, is_over, running_room, state_of
from tests.instances.images import PASSWORD, USERNAME, busybox_layer, entry, layer
from tests.security.hostile_registry import Answer, HostileRegistry, digest_of, hostile_registry

_LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """An installation of this module's own."""
    assert os.geteuid() == 0, "these tests run containers: they need root"
    assert shutil.which("runc"), "these tests need runc"
    ports = dict.fromkeys(DEFAULT_PORTS, 0)
    return install(tmp_path_factory.mktemp("images") / "data", ports=ports, pod_cidr=free_pod_cidr())


@pytest.fixture(scope="module")
def hostile(installed: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileRegistry]:
    """A registry that lies."""
    with hostile_registry(installed, tmp_path_factory.mktemp("hostile")) as registry:
        yield registry


@pytest.fixture(scope="module")
def other(installed: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileRegistry]:
    """Another host."""
    with hostile_registry(installed, tmp_path_factory.mktemp("other")) as registry:
        yield registry


@pytest.fixture(scope="module")
def running(installed: Config, hostile: HostileRegistry, other: HostileRegistry) -> Iterator[Config]:
    """The room, running, which may reach both."""
    exempt = [Exempt(hostile.address), Exempt(other.address)]
    with running_room(install(installed.data_dir, allow_egress=exempt)) as room:
        yield room.config


@pytest.fixture
async def door(running: Config) -> AsyncIterator[FrontDoor]:
    """The front door before it."""
    async with front_door(running) as client:
        yield client


async def put(door: FrontDoor, name: str, image: str, **credential: str) -> None:
    """Make a group of one container of an image."""
    amounts = {"requests": {"cpu": 0.5, "memoryInGB": 0.5}}
    body = group({"name": "web", "properties": {"image": image, "resources": amounts}}, restartPolicy="Never")
    body["properties"]["imageRegistryCredentials"] = [credential] if credential else []
    await door.call("PUT", name, body)


async def refusal(door: FrontDoor, name: str, image: str, **credential: str) -> str:
    """Why the pull of an image fails."""
    await put(door, name, image, **credential)
    found = await door.until(
        name, lambda group: state_of(group).get("detailStatus") == "ImagePullBackOff" or is_over(group)
    )
    events = found["properties"]["containers"][0]["properties"]["instanceView"]["events"]
    await door.call("DELETE", name)
    assert not any(event["name"] in ("Pulled", "Started") for event in events), events
    return "\n".join(event["message"] for event in events)


async def runs(door: FrontDoor, name: str, image: str, **credential: str) -> None:
    """The image is pulled and its container ends well."""
    await put(door, name, image, **credential)
    found = await door.until(
        name, lambda group: is_over(group) or state_of(group).get("detailStatus") == "ImagePullBackOff"
    )
    assert state_of(found).get("exitCode") == 0, found["properties"]["containers"][0]["properties"]["instanceView"]
    await door.call("DELETE", name)


# Digests.


@pytest.mark.parametrize("where", ["layers", "config", "index", "diff_ids"])
@pytest.mark.parametrize("what", ["path", "up", "capitals", "short", "line", "other"])
async def test_a_digest_that_is_none_is_refused(
    door: FrontDoor, hostile: HostileRegistry, tmp_path: Path, where: str, what: str
) -> None:
    """A host folder that is named as a layer's digest would become the container's root."""
    (tmp_path / "secret").write_text("the host's")
    good = "a" * 64
    bad = {
        "path": str(tmp_path),
        "up": f"sha256:../../../../..{tmp_path}",
        "capitals": f"sha256:{good.upper()}",
        "short": f"sha256:{good[1:]}",
        "line": f"sha256:{good}\n",
        "other": f"md5:{good}",
    }[what]
    name = f"digest-{where.replace('_', '-')}-{what}"
    descriptor = {"mediaType": _LAYER, "digest": bad, "size": 1}
    if where == "diff_ids":
        hostile.image(name, [busybox_layer()], configuration={"rootfs": {"type": "layers", "diff_ids": [bad]}})
    elif where == "index":
        hostile.manifest(name, {"schemaVersion": 2, "manifests": [descriptor]})
    else:
        manifest = hostile.image(name, [busybox_layer()])
        manifest[where] = descriptor if where == "config" else [*manifest["layers"], descriptor]
        hostile.manifest(name, manifest)
    assert "is not valid" in await refusal(door, name, f"{hostile.address}/{name}:v1")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("negative", {"layers": [{"digest": digest_of(b"x"), "size": -1}]}, "is not valid"),
        ("huge", {"layers": [{"digest": digest_of(b"x"), "size": 2**62}]}, "is not valid"),
        ("many", {"layers": [{"digest": digest_of(b"x"), "size": 1}] * 128}, "is not valid"),
        ("no-layers", {"layers": None}, "has 1 layers, and the manifest has 0"),
        ("text", {"layers": "all"}, "is not valid"),
        ("fewer", {"layers": []}, "has 1 layers, and the manifest has 0"),
        ("annotated", {"annotations": {"a": 1}}, "is not valid"),
        ("null", None, "is not valid"),
        ("list", [], "is not valid"),
        ("index", {"manifests": [{"size": 1}]}, "is not valid"),
        ("deep", "[" * 5000, "is not valid"),
    ],
)
async def test_a_manifest_that_is_none_is_refused(
    door: FrontDoor, hostile: HostileRegistry, name: str, change: Any, reason: str
) -> None:
    manifest = hostile.image(name, [busybox_layer()])
    hostile.manifest(name, {**manifest, **change} if isinstance(change, dict) else change)
    assert reason in await refusal(door, name, f"{hostile.address}/{name}:v1")


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [
        (b"null", "the image's configuration is not valid"),
        (b"[]", "the image's configuration is not valid"),
        (b"just notes", "the image's configuration is not valid"),
        (b'{"config":{"Cmd":"sleep"},"rootfs":{}}', "Expected `array | null`, got `str` - at `$.config.Cmd`"),
        (b"{}", "the configuration has 0 layers, and the manifest has 1"),
        (b'{"config":null}', "the configuration has 0 layers"),
        (b'{"rootfs":{"diff_ids":null}}', "the configuration has 0 layers"),
    ],
)
async def test_a_configuration_that_is_none_is_refused(
    door: FrontDoor, hostile: HostileRegistry, configuration: bytes, reason: str
) -> None:
    kind = "application/vnd.oci.image.config.v1+json"
    hostile.image("configured", [busybox_layer()], config=hostile.blob("configured", configuration, kind))
    assert reason in await refusal(door, "configured", f"{hostile.address}/configured:v1")


@pytest.mark.parametrize(
    "image",
    [
        "evil.test#.azurecr.io/a:v1",
        "evil.test?.azurecr.io/a:v1",
        "user:secret.test/a:v1",
        "acr.test/a@/etc:v1",
        "a.b/c@",
    ],
)
async def test_an_image_s_name_is_no_part_of_another_address(door: FrontDoor, image: str) -> None:
    body = group({"name": "web", "properties": {"image": image}})
    answer = await door.call("PUT", "named", body, status=400)
    assert answer["error"]["code"] == "InvalidImageName"


# Whose layers.


async def test_another_tenant_s_layer_is_not_had_by_its_digest(door: FrontDoor, hostile: HostileRegistry) -> None:
    """A registry that says that it has a blob, and does not send it, gets nobody the layer of somebody else."""
    private = layer(entry("private", b"the tenant's"))
    manifest = hostile.image("tenant", [busybox_layer(), private])
    await runs(door, "tenant", f"{hostile.address}/tenant:v1")
    stolen = manifest["layers"][1]
    hostile.image("thief", [busybox_layer(), private])
    hostile.answers[f"/v2/thief/blobs/{stolen['digest']}"] = Answer(b"x" * stolen["size"])
    assert "sent other content for" in await refusal(door, "thief", f"{hostile.address}/thief:v1")
    assert hostile.asked_for(f"/v2/thief/blobs/{stolen['digest']}"), "the registry was not asked"
    # Whoever has the bytes has nothing to steal.
    hostile.image("owner", [busybox_layer(), private])
    await runs(door, "owner", f"{hostile.address}/owner:v1")


async def test_a_layer_that_is_here_is_asked_for_with_each_pull_s_credentials(
    door: FrontDoor, hostile: HostileRegistry
) -> None:
    layers = [busybox_layer(), layer(entry("mine", b"once"))]
    manifest = hostile.image("revoked", layers)
    await runs(door, "revoked", f"{hostile.address}/revoked:v1")
    path = f"/v2/revoked/blobs/{manifest['layers'][1]['digest']}"
    denied = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
    hostile.answers[path] = Answer(denied, 403)
    assert "access to the resource is denied" in await refusal(door, "revoked", f"{hostile.address}/revoked:v1")


async def test_a_layer_that_is_here_is_not_moved_again(door: FrontDoor, hostile: HostileRegistry) -> None:
    manifest = hostile.image("warm", [busybox_layer(), layer(entry("warm", b"once"))])
    await runs(door, "warm", f"{hostile.address}/warm:v1")
    hostile.asked.clear()
    await runs(door, "warm", f"{hostile.address}/warm:v1")
    digests = {item["digest"] for item in manifest["layers"]}
    methods = [item.method for item in hostile.asked if item.path.rpartition("/")[2] in digests]
    assert methods == ["HEAD", "HEAD"]


async def test_a_layer_that_is_here_has_the_image_s_diff_id(door: FrontDoor, hostile: HostileRegistry) -> None:
    layers = [busybox_layer(), layer(entry("it", b"here"))]
    hostile.image("diff", layers)
    await runs(door, "diff", f"{hostile.address}/diff:v1")
    wrong = [digest_of(layers[0]), digest_of(b"another")]
    hostile.image("diff", layers, configuration={"rootfs": {"type": "layers", "diff_ids": wrong}})
    assert "but the image's configuration has" in await refusal(door, "diff", f"{hostile.address}/diff:v1")


# Without the registry.


async def test_an_image_that_is_here_is_used_without_its_registry(door: FrontDoor, hostile: HostileRegistry) -> None:
    """With the policy IfNotPresent, and only by those whom the registry gave it."""
    hostile.image("here", [busybox_layer(), layer(entry("here"))])
    await runs(door, "here", f"{hostile.address}/here:v1")
    hostile.asked.clear()
    amounts = {"requests": {"cpu": 0.5, "memoryInGB": 0.5}}
    properties = {"image": f"{hostile.address}/here:v1", "imagePullPolicy": "IfNotPresent", "resources": amounts}
    body = group({"name": "web", "properties": properties}, restartPolicy="Never")
    body["properties"]["imageRegistryCredentials"] = []
    await door.call("PUT", "again", body)
    found = await door.until("again", is_over)
    assert state_of(found).get("exitCode") == 0
    assert not hostile.asked
    await door.call("DELETE", "again")


# Indexes.


async def test_an_index_may_be_in_an_index(door: FrontDoor, hostile: HostileRegistry) -> None:
    manifest = hostile.image("nested", [busybox_layer()])
    mine = {"platform": {"os": "linux", "architecture": GOARCH}}
    arm = {"platform": {"os": "linux", "architecture": "s390x"}}
    entry_ = hostile.by_digest("nested", manifest, "manifest", **mine)
    other = hostile.by_digest("nested", manifest, "manifest", **arm)
    dead_end = hostile.by_digest("nested", {"schemaVersion": 2, "manifests": [other]}, "index")
    inner = hostile.by_digest("nested", {"schemaVersion": 2, "manifests": [other, entry_]}, "index")
    hostile.manifest("nested", {"schemaVersion": 2, "manifests": [dead_end, inner]})
    await runs(door, "nested", f"{hostile.address}/nested:v1")
    for _ in range(4):
        inner = hostile.by_digest("nested", {"schemaVersion": 2, "manifests": [inner]}, "index")
    hostile.manifest("nested", {"schemaVersion": 2, "manifests": [inner]})
    assert "indexes within indexes" in await refusal(door, "nested", f"{hostile.address}/nested:v1")


async def test_an_index_costs_few_requests(door: FrontDoor, hostile: HostileRegistry) -> None:
    index = {"schemaVersion": 2, "manifests": []}
    entries = [
        hostile.by_digest("wide", {**index, "annotations": {"number": str(number)}}, "index") for number in range(100)
    ]
    hostile.manifest("wide", {"schemaVersion": 2, "manifests": entries})
    hostile.asked.clear()
    assert "more than 16 entries" in await refusal(door, "wide", f"{hostile.address}/wide:v1")
    assert len(hostile.asked_for("/v2/wide/manifests/")) < 20


async def test_a_pull_shows_how_far_it_is(door: FrontDoor, hostile: HostileRegistry) -> None:
    manifest = hostile.image("slow", [busybox_layer(), layer(entry("slow"))])
    blob = manifest["layers"][0]
    path = f"/v2/slow/blobs/{blob['digest']}"
    go_on = threading.Event()
    hostile.answers[path] = hostile.answers[path]._replace(go_on=go_on)
    await put(door, "slow", f"{hostile.address}/slow:v1")
    text = f'Pulling image "{hostile.address}/slow:v1": layers 1 of 2, '
    await door.until("slow", lambda found: state_of(found).get("message", "").startswith(text))
    location = f"{door.subscription}/providers/Microsoft.ContainerInstance/locations/eastus"
    (pull,) = (await door.call("GET", f"{location}/cachedImages"))["pulls"]
    assert (pull["image"], pull["layers"], pull["layersTotal"]) == (f"{hostile.address}/slow:v1", 1, 2)
    assert 0 < pull["bytes"] < pull["bytesTotal"] == sum(item["size"] for item in manifest["layers"])
    go_on.set()
    found = await door.until("slow", is_over)
    assert state_of(found).get("exitCode") == 0
    assert (await door.call("GET", f"{location}/cachedImages"))["pulls"] == []
    await door.call("DELETE", "slow")


async def test_a_download_that_trickles_is_canceled() -> None:
    """Time in which the machine itself unpacks does not count."""
    now = [0.0]

    async def pieces(seconds: float, size: int) -> AsyncIterator[bytes]:
        for _ in range(10):
            now[0] += seconds
            yield b"x" * size

    with pytest.raises(PullError, match="no progress: 600 bytes in 60 s"):
        async for _ in paced(pieces(10, 100), lambda: now[0]):
            pass
    received = 0
    async for piece in paced(pieces(10, 20_000), lambda: now[0]):
        now[0] += 1000
        received += len(piece)
    assert received == 200_000


# How much is read.


async def test_a_large_manifest_is_read_to_its_end(door: FrontDoor, hostile: HostileRegistry) -> None:
    annotations = {f"note-{number}": "x" * 10_000 for number in range(100)}
    hostile.image("large", [busybox_layer()], annotations=annotations)
    await runs(door, "large", f"{hostile.address}/large:v1")


@pytest.mark.parametrize("part", ["manifests/v1", "blobs"])
async def test_what_is_too_large_is_refused_by_its_limit(
    door: FrontDoor, hostile: HostileRegistry, part: str
) -> None:
    manifest = hostile.image("larger", [busybox_layer()])
    path = part if part.startswith("manifests") else f"blobs/{manifest['config']['digest']}"
    hostile.answers[f"/v2/larger/{path}"] = Answer(b" " * (5 * 1024 * 1024))
    assert "larger than 4194304 bytes" in await refusal(door, "larger", f"{hostile.address}/larger:v1")


async def test_a_layer_has_the_size_that_the_manifest_says(door: FrontDoor, hostile: HostileRegistry) -> None:
    manifest = hostile.image("sized", [busybox_layer(), layer(entry("sized", b"more"))])
    manifest["layers"][1]["size"] -= 1
    hostile.manifest("sized", manifest)
    assert "the registry sends more" in await refusal(door, "sized", f"{hostile.address}/sized:v1")


async def test_an_error_s_words_are_short_and_plain(door: FrontDoor, hostile: HostileRegistry) -> None:
    message = "no\\u001b[31m\\r\\n" + "x" * 60_000
    hostile.answers["/v2/words/manifests/v1"] = Answer(
        f'{{"errors":[{{"code":"NO","message":"{message}"}}]}}'.encode(), 400
    )
    reason = await refusal(door, "words", f"{hostile.address}/words:v1")
    assert len(reason) < 4000
    assert "\x1b" not in reason


# Archives.


def pax(**records: bytes) -> bytes:
    """An extended header with these records."""
    body = b""
    for key, value in records.items():
        record = key.replace("__", ".").encode() + b"=" + value + b"\n"
        length = len(record) + 2
        while len(b"%d " % length + record) != length:
            length += 1
        body += b"%d " % length + record
    return extended(tarfile.XHDTYPE, body)


def extended(kind: bytes, body: bytes) -> bytes:
    """A header of a type with a body."""
    info = tarfile.TarInfo("extended")
    info.type, info.size = kind, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + b"\0" * (-len(body) % 512)


def plain(name: str) -> bytes:
    """An empty file's header."""
    return tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT)


ARCHIVES = {
    "members": (gzip.compress(b"") * 70_000 + gzip.compress(b"\0" * 1024), "too many gzip members"),
    "records": (extended(tarfile.XHDTYPE, b"5 a=\n" * 200_000) + plain("a"), "too many records"),
    "headers": (pax(comment=b"x" * 500_000) * 3 + plain("a"), "the extended headers of an entry are larger"),
    "names": (
        extended(tarfile.GNUTYPE_LONGNAME, b"a" * 600_000) * 2 + plain("a"),
        "the extended headers of an entry",
    ),
    "attributes": (pax(SCHILY__xattr__user__a=b"x" * 100_000) + plain("a"), "bytes of extended attributes"),
    "for-all": (extended(tarfile.XGLTYPE, b"26 SCHILY.xattr.user.a=bb\n") + plain("a"), "for all its entries"),
    "sparse": (pax(GNU__sparse__size=b"1000000000000") + plain("a"), "unpacks to more than"),
    "negative": (pax(size=b"-1") + plain("a"), "is not a number"),
    "endless": (pax(size=b"9" * 5000) + plain("a"), "is not a number"),
    "owner": (pax(uid=b"4294967295") + plain("a"), "out of range"),
    "time": (pax(mtime=b"nan") + plain("a"), "is not a number"),
    "length": (extended(tarfile.XHDTYPE, b"9" * 100_000 + b" a=b\n") + plain("a"), "an extended header is not valid"),
}


@pytest.mark.parametrize("name", list(ARCHIVES))
async def test_an_archive_costs_no_more_than_its_length(door: FrontDoor, hostile: HostileRegistry, name: str) -> None:
    content, reason = ARCHIVES[name]
    repository = f"archive-{name}"
    manifest = hostile.image(repository, [busybox_layer()])
    packed = content if content.startswith(b"\x1f\x8b") else gzip.compress(content, 1)
    unpacked = content if packed is not content else b"\0" * 1024
    rootfs = {"type": "layers", "diff_ids": [digest_of(busybox_layer()), digest_of(unpacked)]}
    layers = [*manifest["layers"], hostile.blob(repository, packed, f"{_LAYER}+gzip")]
    hostile.image(repository, [busybox_layer()], configuration={"rootfs": rootfs}, layers=layers)
    assert reason in await refusal(door, repository, f"{hostile.address}/{repository}:v1")


def test_folders_on_the_way_to_a_file_count(tmp_path: Path) -> None:
    """A short name may have a hundred folders made."""
    content = layer(entry("/".join(["d"] * 200)), entry("/".join(["e"] * 200)))
    with pytest.raises(LayerError, match="more than 300 files and folders"):
        unpack(io.BytesIO(content).read, tmp_path, digests.of(content), Budget(1024 * 1024, files=300))


def test_the_layers_of_an_image_share_a_limit(tmp_path: Path) -> None:
    budget = Budget(15_000)
    for name in ("first", "second"):
        content = layer(entry(name, b"x" * 5000))
        (tmp_path / name).mkdir()
        if name == "first":
            assert unpack(io.BytesIO(content).read, tmp_path / name, digests.of(content), budget).size == len(content)
        else:
            with pytest.raises(LayerError, match="unpacks to more than 15000 bytes"):
                unpack(io.BytesIO(content).read, tmp_path / name, digests.of(content), budget)


async def test_an_archive_of_many_gzip_members_is_unpacked(door: FrontDoor, hostile: HostileRegistry) -> None:
    """Tools that make layers which can be read in part write a member for each file."""
    content = layer(*(entry(f"file-{number}", b"x") for number in range(2000)))
    members = b"".join(gzip.compress(content[start : start + 512], 1) for start in range(0, len(content), 512))
    manifest = hostile.image("members", [busybox_layer()])
    rootfs = {"type": "layers", "diff_ids": [digest_of(busybox_layer()), digest_of(content)]}
    layers = [*manifest["layers"], hostile.blob("members", members, f"{_LAYER}+gzip")]
    hostile.image("members", [busybox_layer()], configuration={"rootfs": rootfs}, layers=layers)
    await runs(door, "members", f"{hostile.address}/members:v1")


# Where credentials go.


def login(registry: HostileRegistry) -> dict[str, str]:
    """The pull secret for a registry."""
    return {"server": registry.address, "username": USERNAME, "password": PASSWORD}


def shown(registry: HostileRegistry) -> set[str]:
    """The schemes of the credentials that it was shown."""
    return {item.headers.get("Authorization", "none").partition(" ")[0] for item in registry.asked}


async def test_a_redirect_takes_no_credentials_to_another_host(
    door: FrontDoor, hostile: HostileRegistry, other: HostileRegistry
) -> None:
    """Nor is a challenge answered by which that host asks for them."""
    hostile.asked.clear()
    other.asked.clear()
    challenge = {"WWW-Authenticate": 'Basic realm="here"'}
    hostile.image("redirected", [busybox_layer()])
    there = f"https://{other.address}/v2/redirected/manifests/v1"
    hostile.answers["/v2/redirected/manifests/v1"] = Answer(status=307, headers={"Location": there})
    other.answers["/v2/redirected/manifests/v1"] = Answer(status=401, headers=challenge)
    reason = await refusal(door, "redirected", f"{hostile.address}/redirected:v1", **login(hostile))
    assert "401" in reason
    assert shown(other) == {"none"}
    realm = {"WWW-Authenticate": f'Bearer realm="https://{other.address}/token",service="x"'}
    other.answers["/v2/redirected/manifests/v1"] = Answer(status=401, headers=realm)
    await refusal(door, "redirected", f"{hostile.address}/redirected:v1", **login(hostile))
    assert not other.asked_for("/token")


@pytest.mark.parametrize(
    ("name", "realm"),
    [
        ("plain", "http://{other}/token"),
        ("user", "https://u:p@{other}/token"),
        ("none", ""),
        ("relative", "/token"),
        ("no-host", "https:///token"),
        ("port", "https://{other}:99999999/token"),
    ],
)
async def test_a_password_goes_to_a_token_server_over_tls_alone(
    door: FrontDoor, hostile: HostileRegistry, other: HostileRegistry, name: str, realm: str
) -> None:
    other.asked.clear()
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm.format(other=other.address)}",service="x"'}
    hostile.answers[f"/v2/realm-{name}/manifests/v1"] = Answer(status=401, headers=challenge)
    reason = await refusal(door, f"realm-{name}", f"{hostile.address}/realm-{name}:v1", **login(hostile))
    assert "not an https address" in reason
    assert not other.asked


@pytest.mark.parametrize("token", ["[]", "null", '{"token":1}', '{"token":"a\\r\\nHost: b"}', "{}", "not json"])
async def test_a_token_that_is_none_is_refused(
    door: FrontDoor, hostile: HostileRegistry, other: HostileRegistry, token: str
) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="https://{other.address}/token",service="x"'}
    hostile.answers["/v2/token/manifests/v1"] = Answer(status=401, headers=challenge)
    other.answers["/token"] = Answer(token.encode())
    assert "token server" in await refusal(door, "token", f"{hostile.address}/token:v1", **login(hostile))


async def test_a_redirect_stays_within_tls(door: FrontDoor, hostile: HostileRegistry, other: HostileRegistry) -> None:
    there = f"http://{other.address}/v2/downgrade/manifests/v1"
    hostile.answers["/v2/downgrade/manifests/v1"] = Answer(status=307, headers={"Location": there})
    assert "only https is allowed" in await refusal(door, "downgrade", f"{hostile.address}/downgrade:v1")


# What is not connected to.


@pytest.fixture
def inside() -> Iterator[socket.socket]:
    """A port of this machine that must not be reached."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made
        with pytest.raises(BlockingIOError):
            made.accept()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "127.1"])
async def test_an_image_is_not_asked_for_at_this_machine(door: FrontDoor, inside: socket.socket, host: str) -> None:
    port = inside.getsockname()[1]
    told = {
        (await refusal(door, "inside", f"{host}:{number}/a/b:v1")).replace(f":{number}", "") for number in (port, 1)
    }
    assert len(told) == 1, "which port is open was told"


async def test_a_registry_sends_nobody_to_this_machine(
    door: FrontDoor, hostile: HostileRegistry, inside: socket.socket
) -> None:
    path = "/v2/sends/manifests/v1"
    for url in (f"https://127.0.0.1:{inside.getsockname()[1]}/", "https://169.254.169.254/", "https://10.0.0.1/"):
        challenge = {"WWW-Authenticate": f'Bearer realm="{url}",service="x"'}
        for answer in (Answer(status=307, headers={"Location": url}), Answer(status=401, headers=challenge)):
            hostile.answers[path] = answer
            reason = await refusal(door, "sends", f"{hostile.address}/sends:v1", **login(hostile))
            assert "the address is not allowed" in reason


async def test_a_cookie_is_not_for_the_next_tenant(door: FrontDoor, hostile: HostileRegistry) -> None:
    hostile.answers["/v2/cookie/manifests/v1"] = Answer(status=404, headers={"Set-Cookie": "who=first; Path=/"})
    await refusal(door, "cookie", f"{hostile.address}/cookie:v1")
    hostile.asked.clear()
    await refusal(door, "cookie", f"{hostile.address}/cookie:v1")
    assert hostile.asked
    assert not any("Cookie" in item.headers for item in hostile.asked)


async def test_a_probe_asks_its_own_container_alone(
    door: FrontDoor, hostile: HostileRegistry, inside: socket.socket
) -> None:
    """A scheme that holds a host would make the room ask that."""
    hostile.image("probed", [busybox_layer()])
    scheme = f"http://127.0.0.1:{inside.getsockname()[1]}/?"
    probe = {"httpGet": {"port": 80, "path": "/", "scheme": scheme}, "periodSeconds": 1, "failureThreshold": 1}
    properties = {
        "image": f"{hostile.address}/probed:v1",
        "command": ["/bin/sleep", "60"],
        "resources": {"requests": {"cpu": 0.5, "memoryInGB": 0.5}},
        "livenessProbe": probe,
    }
    body = group({"name": "web", "properties": properties}, restartPolicy="Never")
    body["properties"]["imageRegistryCredentials"] = []
    answer = await door.call("PUT", "probed", body, status=400)
    assert answer["error"]["target"] == "properties.containers[0].properties.livenessProbe.httpGet.scheme"
