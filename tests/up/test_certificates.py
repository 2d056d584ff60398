"""The certificates of an installation: renewal while it runs, and migration of a single authority."""

from __future__ import annotations

import base64
import datetime as dt
import math
import os
import signal
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cumulet.common import tls
from cumulet.common.config import DEFAULT_PORTS, Address, Config, RoomName, load, save
from cumulet.common.kubernetes.component import client_of
from cumulet.common.private_files import write_private
from cumulet.common.room import Room
from cumulet.up import certificates
from cumulet.up.install import install
from cumulet.up.renewal import Timer
from tests.cloud import Cloud
from tests.installation import Installation
from tests.security.certificates import Admin, authority, status

REGISTRIES = "/subscriptions/{}/providers/Microsoft.ContainerRegistry/registries?api-version=2023-07-01"
#: Seconds to wait for a new certificate.
_PATIENCE = 30


def _served(config: Config, room: RoomName) -> str:
    """Return the serial number of a room's server certificate."""
    context = tls.client_context(config.authority_file(config.serving_authority(room)))
    address = config.addresses[room]
    with (
        socket.create_connection((address.host, address.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as connection,
    ):
        shown = connection.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])


def _wait_for_another(config: Config, room: RoomName, before: str) -> None:
    """Poll until a room serves another certificate, because it does not signal that."""
    until = time.monotonic() + _PATIENCE
    while _served(config, room) == before:
        assert time.monotonic() < until, f"{room} still serves with the old certificate"


def _due_in(seconds: int) -> dt.timedelta:
    """Return the lifetime of a certificate that is due for renewal in `seconds`: after two thirds, five minutes of which are past."""
    return dt.timedelta(seconds=(3 * seconds + 300) / 2)


# Renewal.


def test_what_is_due_is_renewed_and_nothing_else(config: Config) -> None:
    files = [leaf.files[0] for leaf in certificates.leaves(config)]
    before = [file.read_bytes() for file in files]
    assert certificates.maintain(config) == set()
    assert [file.read_bytes() for file in files] == before
    due = authority(config, "rooms").issue("arm", uri=f"spiffe://{config.trust_domain}/room/arm", life=_due_in(0))
    for path, content in zip(config.room_files("arm"), due, strict=True):
        path.write_bytes(content)
    assert certificates.next_renewal(config) <= dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    assert certificates.maintain(config) == {"rooms"}
    changed = [file for file, content in zip(files, before, strict=True) if file.read_bytes() != content]
    assert changed == [config.room_files("arm")[0]]
    assert certificates.next_renewal(config) > dt.datetime.now(dt.UTC) + dt.timedelta(days=30)


def test_lives_are_months_and_those_of_authorities_years(config: Config) -> None:
    for own, first in certificates.expiry(config).values():
        left = first - dt.datetime.now(dt.UTC)
        assert dt.timedelta(days=80) < left <= dt.timedelta(days=90)
        assert dt.timedelta(days=4 * 365) < own - dt.datetime.now(dt.UTC) <= dt.timedelta(days=5 * 365)


def test_a_key_that_is_not_the_certificates_is_replaced(config: Config) -> None:
    """A crash between the two writes has this effect."""
    other = config.room_files("registry")[1].read_bytes()
    config.room_files("arm")[1].write_bytes(other)
    assert certificates.maintain(config) == {"rooms"}
    tls.client_context(config.ca_file, *config.room_files("arm"))


def test_names_follow_the_settings(config: Config) -> None:
    changed = install(config.data_dir, node_address="192.0.2.7")
    certificate = x509.load_pem_x509_certificate(changed.certificate_files("node")[0].read_bytes())
    assert tls.alternatives(certificate) == {config.node_name, "192.0.2.7"}


def test_the_timer_tells_of_a_moment_that_is_over(config: Config) -> None:
    timer = Timer()
    try:
        assert not _readable(timer, 0)
        timer.set(dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
        assert not _readable(timer, 0)
        timer.set(dt.datetime.now(dt.UTC) - dt.timedelta(days=1))
        assert _readable(timer, 10)
        timer.take()
        assert not _readable(timer, 0)
    finally:
        timer.close()


def _readable(timer: Timer, seconds: float) -> bool:
    import select

    return bool(select.select([timer], [], [], seconds)[0])


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Rooms of each event loop, and a client of the cluster."""
    made = Cloud(tmp_path_factory.mktemp("cloud") / "data", "kube", "arm", "registry", "scheduler", "node")
    yield made
    made.close()


def test_rooms_take_new_certificates_while_they_run(cloud: Cloud) -> None:
    config = cloud.config
    before = {room: _served(config, room) for room in cloud._running}
    users = {
        file: file.read_bytes() for file in (config.user_files("scheduler")[0], config.kubeconfig_file("scheduler"))
    }
    for leaf in certificates.leaves(config):
        leaf.files[0].unlink()
    certificates.maintain(config)
    for process in cloud._running.values():
        os.kill(process, signal.SIGHUP)
    for room, serial in before.items():
        _wait_for_another(config, room, serial)
    assert all(file.read_bytes() != content for file, content in users.items())
    path = f"{cloud.subscription}/providers/Microsoft.ContainerRegistry/registries?api-version=2023-07-01"
    assert cloud.arm("GET", path).status == 200
    nodes = f"/api/v1/nodes/{config.node_name}/proxy/pods"
    assert status(config, "kube", config.user_files(), nodes) == 200


async def test_clients_of_the_cluster_take_new_certificates(cloud: Cloud) -> None:
    config = cloud.config
    room = Room("scheduler", config, [])
    async with client_of(room) as client:
        before = client.kubeconfig.ssl_context
        assert (await client.request("GET", "/api"))["kind"] == "APIVersions"
        config.user_files("scheduler")[0].unlink()
        certificates.maintain(config)
        room.reload()
        assert client.kubeconfig.ssl_context is not before
        assert (await client.request("GET", "/api"))["kind"] == "APIVersions"


# Migration.


def _old_layout(data_dir: Path) -> tuple[Config, bytes]:
    """Create a data directory with a single authority, as the first versions did, and return the authority."""
    addresses = {room: Address("127.0.0.1", 0).free() for room in DEFAULT_PORTS}
    config = Config(data_dir=data_dir, addresses=addresses, tenant_id="t-1", subscription_id="s-1")
    data_dir.mkdir(parents=True)
    save(config)
    (data_dir / "pki").mkdir(exist_ok=True)
    os.chmod(data_dir / "pki", 0o755)  # noqa: PTH101
    key = ec.generate_private_key(ec.SECP256R1())
    root = _sign("Cumulet local CA", (), key, "Cumulet local CA", key, is_authority=True)
    write_private(data_dir / "pki" / "ca.crt", root)
    write_private(data_dir / "pki" / "ca.key", _pem(key))
    write_private(data_dir / "pki" / "bundle.crt", root)
    for name in (*DEFAULT_PORTS, "admin"):
        own = ec.generate_private_key(ec.SECP256R1())
        groups = ("system:masters",) if name in ("admin", "kube") else ()
        write_private(data_dir / "pki" / f"{name}.crt", _sign(name, groups, own, "Cumulet local CA", key))
        write_private(data_dir / "pki" / f"{name}.key", _pem(own))
    write_private(data_dir / "kubeconfigs" / "admin.yaml", base64.b64encode(root))
    return config, root


def _sign(
    name: str,
    groups: tuple[str, ...],
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool = False,
) -> bytes:
    now = dt.datetime.now(dt.UTC)
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
    )
    if not is_authority:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_an_installation_of_before_is_brought_over(tmp_path: Path) -> None:
    data = tmp_path / "data"
    before, root = _old_layout(data)
    old = {
        name: tuple(_copy(data / "pki" / f"{name}.{kind}", tmp_path) for kind in ("crt", "key"))
        for name in ("arm", "admin")
    }
    cloud = Cloud(data, "kube", "registry")
    try:
        config = cloud.config
        assert (config.tenant_id, config.subscription_id) == (before.tenant_id, before.subscription_id)
        assert sorted(path.name for path in config.pki_dir.iterdir() if path.is_file()) == [
            "bundle.crt",
            "ca.crt",
            "lock",
        ]
        assert root not in config.ca_file.read_bytes() + config.trust_bundle_file.read_bytes()
        cluster = yaml.safe_load(config.kubeconfig_file().read_text())["clusters"][0]["cluster"]
        assert base64.b64decode(cluster["certificate-authority-data"]) == config.ca_file.read_bytes()
        path = REGISTRIES.format(config.subscription_id)
        assert status(config, "registry", (old["arm"][0], old["arm"][1]), path) == 0
        assert status(config, "registry", config.room_files("arm"), path) == 200
        assert status(config, "kube", (old["admin"][0], old["admin"][1]), "/api/v1/namespaces") == 0
        assert Admin(cloud, tmp_path).call("GET", "/api/v1/namespaces")[0] == 200
        context = ssl.create_default_context(cadata=root.decode())
        address = config.addresses["registry"]
        with (
            socket.create_connection((address.host, address.port)) as plain,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            context.wrap_socket(plain, server_hostname="localhost")
    finally:
        cloud.close()


def _copy(file: Path, folder: Path) -> Path:
    copied = folder / file.name
    copied.write_bytes(file.read_bytes())
    return copied


def test_a_crash_while_it_is_brought_over_is_made_good(tmp_path: Path) -> None:
    """The old key is deleted last, after the new certificates are created."""
    data = tmp_path / "data"
    _, root = _old_layout(data)
    installed = install(data)
    new = installed.ca_file.read_bytes()
    write_private(data / "pki" / "ca.key", b"left over")
    write_private(data / "pki" / "arm.key", b"left over")
    write_private(installed.ca_file, root)
    again = install(data)
    assert again.ca_file.read_bytes() == new
    assert not (data / "pki" / "ca.key").exists()
    assert not (data / "pki" / "arm.key").exists()


# Folders.


def test_folders_are_private_at_every_level(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        config = install(tmp_path / "a" / "b" / "data")
        for folder in (tmp_path / "a", tmp_path / "a" / "b", *_folders(config.data_dir)):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
        for folder in (config.data_dir, config.pki_dir, config.pki_dir / "authorities"):
            folder.chmod(0o755)
        install(config.data_dir)
        assert {stat.S_IMODE(folder.stat().st_mode) for folder in _folders(config.data_dir)} == {0o700}
    finally:
        os.umask(mask)


def _folders(data_dir: Path) -> list[Path]:
    return [data_dir, *(path for path in data_dir.rglob("*") if path.is_dir())]


# End to end.


def test_up_says_what_it_changed_and_renews_while_it_runs(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data")
    _old_layout(installation.data_dir)
    options = ("--pod-cidr", installation.pod_cidr, "--external-cidr", installation.external_cidr)
    try:
        for command in (("status",), ("serve", "registry"), ("scheduler",)):
            assert "run `cumulet up`" in installation.run("cumulet", *command, code=1)
        began = time.monotonic()
        assert "was replaced by one for each purpose" in installation.up(*options)
        start = time.monotonic() - began
        listed = installation.run("cumulet", "status")
        assert all(name in listed for name in certificates.AUTHORITIES)
        installation.down()
        config = load(installation.data_dir)
        hosts = ("127.0.0.1", "localhost", f"*.{config.registry_suffix}")
        # It is not due yet when the next `cumulet up` looks, which is the first thing that it does.
        life = _due_in(1 + math.ceil(start / 2))
        short = authority(config, "serving").issue("registry", hosts=hosts, life=life)
        for path, content in zip(config.certificate_files("registry"), short, strict=True):
            path.write_bytes(content)
        serial = str(x509.load_pem_x509_certificate(short[0]).serial_number)
        assert "replaced" not in installation.up(*options)
        processes = installation.pids()
        _wait_for_another(config, "registry", f"{int(serial):X}")
        assert installation.pids() == processes
    finally:
        installation.down()
