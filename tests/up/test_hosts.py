"""Login servers in /etc/hosts and in certs.d of docker and containers/image, and the removal of all of them."""

from __future__ import annotations

import os
import selectors
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulet.common.config import Address, Config
from cumulet.common.private_files import write_private
from cumulet.common.tls import Authority
from cumulet.up.hosts import Hosts, Watch, address, is_enabled, with_hosts
from tests.installation import Installation
from tests.oci_layout import write_layout

PLAIN = b"127.0.0.1\tlocalhost\n::1 ip6-localhost\n"


def names(config: Config, *servers: str) -> None:
    write_private(config.login_servers_file, "\n".join(servers).encode())


def snapshot(root: Path) -> dict[str, bytes | None]:
    """Return every file and folder below a path, with the content of files."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with an /etc/hosts and without docker's folders."""
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc/hosts").write_bytes(PLAIN)
    return made


def test_login_servers_come_and_go(config: Config, root: Path) -> None:
    before = snapshot(root)
    hosts = Hosts(config, root)
    names(config, "one.azurecr.io", "two.azurecr.io")
    hosts.update()
    text = (root / "etc/hosts").read_bytes()
    assert text.startswith(PLAIN)
    lines = text.decode().splitlines()
    here = address(config).host
    assert here.startswith("127.44.")
    assert lines[-3:-1] == [f"{here} one.azurecr.io", f"{here} two.azurecr.io"]
    for client in ("docker", "containers"):
        for server in ("one", "two"):
            found = root / f"etc/{client}/certs.d/{server}.azurecr.io/ca.crt"
            assert found.read_bytes() == config.ca_file.read_bytes()
    names(config, "two.azurecr.io", "three.azurecr.io")
    hosts.update()
    hosts.update()
    text = (root / "etc/hosts").read_bytes()
    assert (text.count(b"one."), text.count(b"two."), text.count(b"three.")) == (0, 1, 1)
    assert not (root / "etc/docker/certs.d/one.azurecr.io").exists()
    assert hosts.remove()
    assert snapshot(root) == before
    assert hosts.remove() == []


def test_what_was_there_stays(config: Config, root: Path) -> None:
    """Other folders, the user's certificate, and lines that were added later stay."""
    theirs = root / "etc/docker/certs.d/one.azurecr.io/ca.crt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    names(config, "one.azurecr.io", "two.azurecr.io")
    before = snapshot(root)
    hosts = Hosts(config, root)
    hosts.update()
    assert theirs.read_text() == "theirs"
    (ours,) = [path for path in theirs.parent.iterdir() if path != theirs]
    assert ours.suffix == ".crt"
    assert ours.read_bytes() == config.ca_file.read_bytes()
    with (root / "etc/hosts").open("ab") as file:
        file.write(b"10.0.0.1 later\n")
    hosts.update()
    (root / "etc/containers/certs.d/keep").mkdir()
    Hosts(config, root).remove()  # by another process, such as `down` after a crash
    after = snapshot(root)
    assert after["etc/hosts"] == PLAIN + b"10.0.0.1 later\n"
    added = {"etc/containers", "etc/containers/certs.d", "etc/containers/certs.d/keep"}
    assert {path for path in after if path not in before} == added


def test_a_crash_before_the_files_were_made(config: Config, root: Path) -> None:
    before = snapshot(root)
    names(config, "one.azurecr.io")
    Hosts(config, root).update()
    (root / "etc/docker/certs.d/one.azurecr.io/ca.crt").unlink()
    (root / "etc/containers/certs.d/one.azurecr.io/ca.crt").unlink()
    (root / "etc/containers/certs.d/one.azurecr.io").rmdir()
    Hosts(config, root).remove()
    assert snapshot(root) == before


def test_two_installations(config: Config, root: Path, tmp_path: Path) -> None:
    other = msgspec.structs.replace(config, data_dir=tmp_path / "other")
    Authority.open(other.ca_file, other.ca_file.with_suffix(".key"))
    for each in (config, other):
        names(each, "same.azurecr.io")
        Hosts(each, root).update()
    assert len(list((root / "etc/docker/certs.d/same.azurecr.io").iterdir())) == 2
    assert address(config) != address(other)
    Hosts(config, root).remove()
    assert (root / "etc/hosts").read_bytes().count(b"same.azurecr.io") == 1
    Hosts(other, root).remove()
    # Both used the folder that the first one created. It stays, empty.
    assert {path: text for path, text in snapshot(root).items() if text is not None} == {"etc/hosts": PLAIN}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10)
@given(
    st.binary(max_size=80),
    st.sets(st.from_regex(r"[a-z0-9]{5,9}\.azurecr\.io", fullmatch=True), min_size=1, max_size=3),
)
def test_every_file_is_given_back_byte_for_byte(config: Config, root: Path, text: bytes, servers: set[str]) -> None:
    file = root / "etc/hosts"
    file.write_bytes(text)
    inode, mode = file.stat().st_ino, file.stat().st_mode
    hosts = Hosts(config, root)
    names(config, *servers)
    hosts.update()
    assert file.read_bytes().startswith(text)
    names(config, *servers, "another.azurecr.io")
    hosts.update()
    assert b"another" in file.read_bytes()
    hosts.remove()
    assert file.read_bytes() == text
    assert (file.stat().st_ino, file.stat().st_mode) == (inode, mode)


def test_what_is_no_name_is_not_written(config: Config, root: Path) -> None:
    before = snapshot(root)
    names(config, "../../evil", "a..b", "UPPER", "-x", "/abs", "x\0y")
    Hosts(config, root).update()
    assert snapshot(root) == before


def test_names_of_container_groups_come_and_go(config: Config, root: Path) -> None:
    before = snapshot(root)
    hosts = Hosts(config, root)
    pod = config.pod_cidr.replace(".0.0/16", ".3.4")
    lines = [f"{pod} my-app.eastus.azurecontainer.io", f"{pod} my-app.0123456789abcde.eastus.azurecontainer.io"]
    others = [
        "192.0.2.1 other.eastus.azurecontainer.io",
        f"{pod} evil.example",
        f"{pod} a b.eastus.azurecontainer.io",
        "x",
    ]
    write_private(config.group_names_file, "\n".join([*lines, *others]).encode())
    hosts.update()
    assert (root / "etc/hosts").read_text().splitlines()[-3:-1] == sorted(lines, key=lambda line: line.split()[1])
    write_private(config.group_names_file, lines[0].encode())
    hosts.update()
    assert (root / "etc/hosts").read_text().count("azurecontainer.io") == 1
    write_private(config.group_names_file, b"")
    hosts.update()
    assert snapshot(root) == before


def test_a_block_that_somebody_wrote_into_is_left(config: Config, root: Path) -> None:
    names(config, "one.azurecr.io")
    hosts = Hosts(config, root)
    hosts.update()
    file = root / "etc/hosts"
    file.write_bytes(file.read_bytes().replace(b"# END", b"10.0.0.1 mine\n# END"))
    hosts.remove()
    assert b"10.0.0.1 mine\n" in file.read_bytes()


def test_the_watch_tells_of_the_list_only(config: Config) -> None:
    watch = Watch(config)
    with selectors.DefaultSelector() as selector:
        selector.register(watch, selectors.EVENT_READ)
        assert selector.select(0) == []
        write_private(config.login_servers_file.with_name("another"), b"")
        assert selector.select(5)
        assert not watch.take()
        for file in (config.login_servers_file, config.group_names_file):
            write_private(file, b"")
            assert selector.select(5)
            assert watch.take()
            assert not watch.take()
    watch.close()


def test_the_settings(config: Config) -> None:
    mine = Address("127.0.0.9", 8443)
    plain = msgspec.structs.replace(config, more_addresses={"registry": [mine], "arm": [mine]})
    wanted = with_hosts(with_hosts(plain, enabled=True), enabled=True)
    assert is_enabled(wanted)
    assert wanted.listening("registry")[1:] == [mine, address(config)]
    assert with_hosts(wanted, enabled=False) == plain
    assert not is_enabled(plain)


_SCRIPT = """
set -eux
trap 'cumulet down >/dev/null' EXIT
mount --make-rprivate /
cp -a /etc "$WORK/etc"
mount --bind "$WORK/etc" /etc
printf '127.0.0.1 localhost' >/etc/hosts
rm -rf /etc/docker/certs.d /etc/containers/certs.d
cp -a /etc "$WORK/before"
cumulet up --detach --hosts --port all=0 --pod-cidr "$POD_CIDR" --external-cidr "$EXTERNAL_CIDR"
cumulet group create rg
cumulet registry create acrdemo2ss -g rg --admin-enabled --query name
password=$(cumulet registry credential acrdemo2ss --query 'passwords[0].value' -o tsv)
until getent hosts acrdemo2ss.azurecr.io; do :; done
skopeo login --authfile "$WORK/auth.json" -u acrdemo2ss -p "$password" acrdemo2ss.azurecr.io
skopeo copy --authfile "$WORK/auth.json" oci:"$IMAGE":v1 docker://acrdemo2ss.azurecr.io/app3/acr-app3:v1
$END
cumulet down
diff -r --no-dereference "$WORK/before" /etc
"""
_CRASH = """
kill -9 $(grep -o '"supervisor": [0-9]*' "$CUMULET_DATA_DIR/run/pids.json" | grep -o '[0-9]*$')
grep cumulet /etc/hosts
"""


_VERBS = """
password=$(cumulet registry token acrdemo2ss puller --allow 'app3/*:content/read' --query 'passwords[0].value' -o tsv)
skopeo inspect --creds "puller:$password" docker://acrdemo2ss.azurecr.io/app3/acr-app3:v1
cumulet registry import acrdemo2ss --source acrdemo2ss.azurecr.io/app3/acr-app3:v1 --image copy/app:v2
skopeo inspect --authfile "$WORK/auth.json" docker://acrdemo2ss.azurecr.io/copy/app:v2
! skopeo inspect --creds "puller:$password" docker://acrdemo2ss.azurecr.io/copy/app:v2
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts and port 443 take root")
@pytest.mark.parametrize("end", [_CRASH, pytest.param(_VERBS, marks=pytest.mark.clients)], ids=["crash", "down"])
def test_literally(tmp_path: Path, end: str) -> None:
    """`skopeo login acrdemo2ss.azurecr.io` works literally. A copy of /etc keeps the machine's unchanged."""
    installation = Installation(tmp_path / "data")
    write_layout(tmp_path / "image")
    ranges = {"POD_CIDR": installation.pod_cidr, "EXTERNAL_CIDR": installation.external_cidr}
    installation.environment |= ranges | {"WORK": str(tmp_path), "IMAGE": str(tmp_path / "image")}
    installation.run("unshare", "--mount", "bash", "-c", _SCRIPT.replace("$END", end))
