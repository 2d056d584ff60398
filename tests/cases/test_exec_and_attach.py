"""Commands in containers and their own standard streams: input and its end, terminals, exit codes, copied folders."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import ssl
import struct
import subprocess
import termios
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest

from tests.cases.azure import AzureClient
from tests.cases.path import IMAGE, ThePath, pod

_BIG = 10_000_000
#: Lines, columns.
_SIZE = (31, 97)
_TAR = "for name in tar cat; do ln -sf busybox /bin/$name; done; sleep 1000"


@pytest.fixture(scope="module", autouse=True)
def pods(path: ThePath) -> None:
    """A pod to run commands in, one whose containers read input, and one that is still initialized."""
    path.apply(
        pod("commands", [{"name": "main", "command": ["sh", "-c", _TAR], "workingDir": "/tmp"}]),
        pod(
            "inputs",
            [
                {
                    "name": "lines",
                    "command": ["sh", "-c", "while read x; do echo got $x; done; echo no"],
                    "stdin": True,
                },
                {
                    "name": "once",
                    "command": ["sh", "-c", "cat; echo over; sleep 1000"],
                    "stdin": True,
                    "stdinOnce": True,
                },
                {"name": "terminal", "command": ["sh"], "stdin": True, "tty": True},
                {"name": "none", "command": ["sleep", "1000"]},
            ],
        ),
        pod(
            "beginning",
            [{"name": "main", "command": ["sleep", "1000"]}],
            initContainers=[{"name": "first", "image": IMAGE, "command": ["sleep", "1000"]}],
        ),
        pod("brief", [{"name": "main", "command": ["sh", "-c", "while [ ! -e /stop ]; do sleep 0.1; done"]}]),
    )
    path.wait("pod/commands", "condition=Ready")
    path.wait("pod/inputs", "condition=Ready")


def test_commands_have_their_input_and_exit_codes(path: ThePath) -> None:
    # Its end is seen by the command.
    assert path.kubectl("exec", "-i", "commands", "--", "cat", stdin="x\n") == "x\n"
    assert "exit code 7" in path.kubectl("exec", "commands", "--", "sh", "-c", "exit 7", code=7)
    assert path.kubectl("exec", "commands", "--", "sh", "-c", "pwd").strip() == "/tmp"
    data = os.urandom(_BIG)
    assert _run(path, "exec", "-i", "commands", "--", "cat", stdin=data) == data

    def exits(code: int) -> int:
        command = ("kubectl", "exec", "commands", "--", "sh", "-c", f"exit {code}")
        return subprocess.run(command, env=path.installation.environment, capture_output=True, check=False).returncode

    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(exits, range(1, 9))] == [*range(1, 9)]
    path.until(lambda: "running" in str(path.get("beginning")["status"]["initContainerStatuses"]), "init container")
    assert path.kubectl("exec", "beginning", "-c", "first", "--", "echo", "here") == "here\n"
    assert 'container not found ("main")' in path.kubectl("exec", "beginning", "-c", "main", "--", "true", code=1)
    failed = path.kubectl("exec", "commands", "--", "absent", code=1)
    assert 'OCI runtime exec failed: exec failed: unable to start container process: exec: "absent"' in failed
    assert failed.count("exec failed") == 2  # in the error, and not as output
    # A command ends when its container does.
    ending = threading.Timer(1, lambda: path.kubectl("exec", "brief", "--", "sh", "-c", ": > /stop"))
    ending.start()
    path.kubectl("exec", "brief", "--", "sleep", "1000", code=137)
    ending.join()


def test_folders_are_copied_both_ways(path: ThePath, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    (sent / "a" / "b").mkdir(parents=True)
    (sent / "a" / "b" / "text").write_text("one\r\n")
    (sent / "bytes").write_bytes(data := os.urandom(1_000_000))
    path.kubectl("cp", str(sent), "commands:/tmp/folder")
    path.kubectl("cp", "commands:/tmp/folder", str(tmp_path / "back"))
    assert (tmp_path / "back" / "a" / "b" / "text").read_bytes() == b"one\r\n"
    assert (tmp_path / "back" / "bytes").read_bytes() == data


def test_a_container_with_standard_input_is_attached_to(path: ThePath) -> None:
    assert _talk(path, "lines", b"one\n", until=b"got one\n")
    # Its input is open again for the next client.
    assert _talk(path, "lines", b"two\n", until=b"got two\n")
    assert _talk(path, "once", b"all\n", until=b"all\nover\n")
    said = path.kubectl("attach", "-i", "inputs", "-c", "none", code=1)
    assert "has no standard input" in said
    name = ("--image", IMAGE, "--restart=Never", "--overrides", _overrides())
    ran = path.kubectl("run", "-i", "--rm", "piped", *name, "--", "cat", stdin="through\n")
    assert "through\n" in ran


def test_a_terminal_has_its_size_from_the_start(path: ThePath) -> None:
    run = ("exec", "-it", "commands", "--", "sh", "-c", "stty size; read x; echo $x; exit 4")
    said, code = _on_terminal(path, run, {b"31 97": b"typed\n"})
    assert (code, b"typed\r\ntyped" in said) == (4, True)
    # kubectl makes a terminal that it attaches to larger first, so that programs draw it again.
    typed = b"while [ \"$(stty size)\" != '31 97' ]; do :; done; stty size; exit\n"
    said, code = _on_terminal(path, ("attach", "-it", "inputs", "-c", "terminal"), {b"prompt": typed})
    assert b"\r\n31 97\r\n" in said


async def test_azure_executes_on_a_terminal_of_its_size(path: ThePath) -> None:
    azure = AzureClient(path.installation)
    everywhere = f"{azure.subscription}/providers/Microsoft.ContainerInstance/containerGroups"
    groups = azure.call("GET", everywhere).body["value"]
    (group,) = [item["id"] for item in groups if item["tags"].get("PodName") == "commands"]
    container = f"{group}/containers/main"
    size = {"rows": _SIZE[0], "cols": _SIZE[1]}
    offer = azure.call("POST", f"{container}/exec", {"command": "/bin/sh", "terminalSize": size}).body
    trusted = ssl.create_default_context(cafile=str(path.installation.data_dir / "pki" / "ca.crt"))
    seen = b""
    async with aiohttp.ClientSession() as session, session.ws_connect(offer["webSocketUri"], ssl=trusted) as socket:
        await socket.send_str(offer["password"])
        await socket.send_str("stty size; exit\n")
        async for message in socket:
            seen += message.data
    assert b"\r\n31 97\r\n" in seen
    refused = azure.call("POST", f"{container}/exec", {"command": "/bin/sh", "terminalSize": {"rows": -1}})
    assert (refused.status, refused.body["error"]["target"]) == (400, "terminalSize")


def _overrides() -> str:
    spec = pod("x", [])["spec"]
    selected = {name: spec[name] for name in ("nodeSelector", "tolerations", "imagePullSecrets")}
    return str({"spec": selected}).replace("'", '"')


def _run(path: ThePath, *arguments: str, stdin: bytes) -> bytes:
    done = subprocess.run(
        ("kubectl", *arguments), env=path.installation.environment, input=stdin, stdout=subprocess.PIPE, check=True
    )
    return done.stdout


def _talk(path: ThePath, container: str, given: bytes, *, until: bytes) -> bool:
    """Attach to a container, give it input and end that; return whether it answered."""
    command = ("kubectl", "attach", "-i", "-q", "inputs", "-c", container)
    with subprocess.Popen(
        command, env=path.installation.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(given)
            process.stdin.close()
            return _read(process.stdout.fileno(), until).endswith(until)
        finally:
            process.terminate()


def _on_terminal(path: ThePath, arguments: tuple[str, ...], answers: dict[bytes, bytes]) -> tuple[bytes, int]:
    """Run kubectl on a terminal of 31 lines and 97 columns, and type each answer after its cue; return what is seen."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", *_SIZE, 0, 0))
    with subprocess.Popen(
        ("kubectl", *arguments), env=path.installation.environment, stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        seen = b""
        for cue, answer in answers.items():
            seen += _read(ours, cue)
            os.write(ours, answer)
        seen += _read(ours, None)
        code = process.wait(30)
    os.close(ours)
    return seen, code


def _read(descriptor: int, until: bytes | None) -> bytes:
    """Read up to the bytes `until`, or to the end."""
    seen = b""
    while until is None or until not in seen:
        assert select.select([descriptor], [], [], 60)[0], f"no {until!r} after {seen!r}"
        try:
            data = os.read(descriptor, 65536)
        except OSError:  # the other end of a terminal is closed
            break
        if not data:
            break
        seen += data
    return seen
