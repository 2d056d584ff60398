"""The installed console script without an installation, with a stopped one, and with a damaged one."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.up.install import install
from tests.cli.command import LONG, Result, Verb, Words, run, run_script, verbs

_VERBS = [verb for verb in verbs() if verb.words not in LONG]
#: Verbs that need no running room.
_OFFLINE = {("down",), ("status",), ("env",)}


def _name(verb: Verb) -> str:
    return " ".join(verb.words)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """An installation that is not running."""
    return install(tmp_path_factory.mktemp("stopped") / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0))


@pytest.mark.parametrize("verb", _VERBS, ids=_name)
def test_without_an_installation(verb: Verb, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    line = run(*verb.words, *verb.arguments, data_dir=data_dir).is_one_line()
    assert str(data_dir) in line
    assert "`cumulet up`" in line
    assert not data_dir.exists()


@pytest.mark.parametrize("verb", [verb for verb in _VERBS if verb.words not in _OFFLINE], ids=_name)
def test_a_stopped_installation(verb: Verb, stopped: Config) -> None:
    line = run(*verb.words, *verb.arguments, data_dir=stopped.data_dir).is_one_line()
    assert "Connection refused" in line
    assert "`cumulet up`" in line


@pytest.mark.parametrize("words", [*(verb.words for verb in _VERBS), ("up",), ("serve",)], ids=" ".join)
def test_another_user_is_refused(words: Words, stopped: Config) -> None:
    arguments = next(verb.arguments for verb in verbs() if verb.words == words)
    if words == ("serve",):
        arguments = ("kube",)
    line = run(*words, *arguments, data_dir=stopped.data_dir, user=65534).is_one_line()
    assert "permission denied" in line
    assert str(stopped.data_dir) in line


def test_the_script_as_a_process_of_its_own(stopped: Config) -> None:
    assert "Connection refused" in run_script("group", "list", data_dir=stopped.data_dir).is_one_line()


def test_down_of_a_stopped_installation_succeeds(stopped: Config) -> None:
    assert run("down", data_dir=stopped.data_dir) == Result(0, "", "")


def test_status_of_a_stopped_installation(stopped: Config) -> None:
    result = run("status", data_dir=stopped.data_dir)
    assert (result.code, result.error) == (1, "")
    lines = result.output.splitlines()
    for room in stopped.rooms:
        (line,) = [line for line in lines if line.split()[0] == room]
        assert line.endswith("down: Connection refused")


def test_env_of_a_stopped_installation(stopped: Config) -> None:
    result = run("env", data_dir=stopped.data_dir)
    assert (result.code, result.error) == (0, "")
    assert f"export KUBECONFIG='{stopped.kubeconfig_file()}'" in result.output.splitlines()


def test_env_quotes_a_data_directory_with_an_apostrophe(tmp_path: Path) -> None:
    config = install(tmp_path / "o'clock", ports=dict.fromkeys(DEFAULT_PORTS, 0))
    exports = run("env", data_dir=config.data_dir).output
    shell = subprocess.run(
        ["sh", "-c", f'{exports}printf %s "$CUMULET_DATA_DIR"'], capture_output=True, text=True, check=True
    )
    assert shell.stdout == str(config.data_dir)


def test_up_lists_missing_requirements_with_their_fixes(tmp_path: Path) -> None:
    result = run("up", "--port", "all=0", data_dir=tmp_path / "data", environment={"PATH": str(tmp_path)})
    assert result.code == 1
    assert result.error.startswith("ERROR: missing requirements:\n")
    assert "not on PATH: runc, conmon, ip" in result.error
    assert "Fix: sudo apt-get install --yes runc conmon iproute2" in result.error
    assert "Traceback" not in result.error


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--pod-cidr", "bogus"), "--pod-cidr"),
        (("--pod-cidr", "10.250.0.1/16"), "--pod-cidr"),
        (("--pod-cidr", "fd00::/64"), "--pod-cidr"),
        (("--pod-cidr", "10.0.128.0/17"), "--service-cidr"),
        (("--service-cidr", "10.241.128.0/17"), "--pod-cidr"),
        (("--external-cidr", "127.10.0.0/33"), "--external-cidr"),
        (("--external-cidr", "10.241.3.0/24"), "--pod-cidr"),
        (("--node-address", "node.example"), "--node-address"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
@pytest.mark.parametrize("exists", [False, True], ids=["new", "existing"])
def test_up_checks_options_before_it_saves_them(
    options: Words, named: str, exists: bool, stopped: Config, tmp_path: Path
) -> None:
    data_dir = stopped.data_dir if exists else tmp_path / "data"
    saved = (data_dir / "config.json").read_bytes() if exists else None
    assert named in run("up", *options, data_dir=data_dir).is_one_line()
    assert exists or not (data_dir / "config.json").exists()
    assert saved is None or (data_dir / "config.json").read_bytes() == saved


def test_up_repairs_a_saved_range_that_is_not_valid(tmp_path: Path) -> None:
    config = install(tmp_path / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0))
    file = config.data_dir / "config.json"
    file.write_text(file.read_text().replace(config.pod_cidr, "bogus"))
    environment = {"PATH": str(tmp_path)}
    assert "--pod-cidr" in run("up", data_dir=config.data_dir, environment=environment).is_one_line()
    result = run("up", "--pod-cidr", "10.250.0.0/16", data_dir=config.data_dir, environment=environment)
    assert "not on PATH" in result.error
    assert "10.250.0.0/16" in file.read_text()


def test_the_range_of_cluster_ips_is_chosen_before_the_cluster_is_created(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    made = install(data_dir, ports=dict.fromkeys(DEFAULT_PORTS, 0), service_cidr="10.77.0.0/16")
    assert install(data_dir, service_cidr="10.78.0.0/16").service_cidr == "10.78.0.0/16"
    made.room_dir("kube").mkdir()
    (made.room_dir("kube") / "kube.db").touch()
    assert install(data_dir, service_cidr="10.78.0.0/16").service_cidr == "10.78.0.0/16"
    line = run("up", "--service-cidr", "10.79.0.0/16", data_dir=data_dir).is_one_line()
    assert "--service-cidr: the cluster has 10.78.0.0/16" in line


def test_the_balancer_checks_its_range(stopped: Config) -> None:
    line = run("balancer", "--external-cidr", "127.0.0.1", "--port", "x", data_dir=stopped.data_dir).is_usage_error()
    assert "--port" in line
    line = run("balancer", "--external-cidr", "10.241.0.0/24", data_dir=stopped.data_dir).is_one_line()
    assert "--external-cidr" in line


@pytest.mark.parametrize("verb", ["up", "scheduler", "node"])
def test_a_kubeconfig_that_is_not_one_is_refused(verb: str, stopped: Config, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("kind: List\n")
    assert str(file) in run(verb, "--kubeconfig", str(file), data_dir=stopped.data_dir).is_one_line()


def test_a_port_in_use_is_named(stopped: Config) -> None:
    address = stopped.addresses["identity"]
    with contextlib.closing(socket.create_server((address.host, address.port))):
        line = run("serve", "identity", data_dir=stopped.data_dir).is_one_line()
        assert str(address.port) in line
        assert "in use" in line


@pytest.fixture
def damaged(stopped: Config) -> Iterator[Path]:
    """The data directory; its settings and credentials are restored at the end."""
    files = [stopped.data_dir / "config.json", stopped.credential_file("owner")]
    contents = [file.read_bytes() for file in files]
    yield stopped.data_dir
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"data_dir": 1}'])
@pytest.mark.parametrize("verb", ["down", "status", "up"])
def test_settings_that_are_not_valid_are_named(verb: str, content: str, damaged: Path) -> None:
    (damaged / "config.json").write_text(content)
    assert "config.json is not valid" in run(verb, data_dir=damaged).is_one_line()


@pytest.mark.parametrize("content", [None, "{"])
def test_a_missing_or_damaged_credential_is_one_line(content: str | None, damaged: Path) -> None:
    file = damaged / "credentials" / "owner.json"
    file.unlink() if content is None else file.write_text(content)
    run("group", "list", data_dir=damaged).is_one_line()


def test_a_file_as_data_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("--data-dir", str(tmp_path / "file"), "status", data_dir=tmp_path)
    assert "--data-dir" in result.is_usage_error()


def test_debug_shows_the_traceback(damaged: Path) -> None:
    (damaged / "credentials" / "owner.json").unlink()
    result = run("group", "list", data_dir=damaged, environment={"CUMULET_DEBUG": "1"})
    assert result.code == 1
    assert "Traceback" in result.error
