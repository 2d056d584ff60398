"""Logs: bytes as they were written, lines of any length, and more than the files of a log hold."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator

from tests.cases.path import IMAGE, ThePath, pod

_PROGRESS = "one\n10%\r50%\r100%\ntwo\na\rb\rc\nend\n"
_LONG = "x" * 20_000
#: Four lines; the third is longer than what conmon reads at once, and the last does not end.
_WRITES = f"printf '{_PROGRESS.replace('%', '%%')}'; sleep 0.2; printf abc; sleep 0.2; head -c 20000 /dev/zero | tr '\\0' x; echo; printf end"
#: More than two files of 10 MiB, in bursts, so that the log is rotated between them.
_LINES = 24_000
_FLOOD = (
    f"yes $(printf %0990d 7) | head -n {_LINES} | "
    "awk '{print NR, $0; if (NR % 12000 == 0) system(\"sleep 1.2\")}'; echo last; sleep 1000"
)


def test_output_is_kept_byte_for_byte(path: ThePath) -> None:
    seen: list[str] = []
    wanted = f"{_PROGRESS}abc{_LONG}\nend"
    looping = {"name": "main", "command": ["sh", "-c", "echo $HOSTNAME began; exit 3"]}
    path.apply(
        pod("bytes", [{"name": "main", "command": ["sh", "-c", _WRITES]}], restartPolicy="Never"),
        pod("flood", [{"name": "main", "command": ["sh", "-c", _FLOOD]}]),
        pod(
            "again", [looping], initContainers=[{"name": "first", "image": IMAGE, "command": ["echo", "initialized"]}]
        ),
    )
    path.wait("pod/bytes", "condition=Initialized")
    path.wait_phase("flood", "Running")
    following = threading.Thread(target=lambda: seen.extend(_follow(path, "flood")))
    following.start()
    path.wait_phase("bytes", "Succeeded")
    assert _raw(path, "bytes") == wanted
    assert _raw(path, "bytes", "--follow") == wanted
    assert _raw(path, "bytes", "--tail=2") == f"abc{_LONG}\nend"
    assert _raw(path, "bytes", "--tail=0") == ""
    assert _raw(path, "bytes", "--limit-bytes=9") == wanted[:9]
    assert _raw(path, "bytes", "--since=1h") == wanted
    stamped = _raw(path, "bytes", "--timestamps").split("\n")
    assert [line.partition(" ")[2] for line in stamped] == wanted.split("\n")
    assert _raw(path, "bytes", f"--since-time={stamped[-1].partition(' ')[0]}").endswith("end")
    assert _raw(path, "bytes", "--since-time=2100-01-01T00:00:00Z") == ""

    assert path.kubectl("logs", "again", "-c", "first") == "initialized\n"
    path.until(lambda: path.get("again")["status"]["containerStatuses"][0]["restartCount"] >= 1, "restart of again")
    assert path.kubectl("logs", "again", "--previous", "-c", "main") == "again began\n"
    prefixed = path.kubectl("logs", "again", "--all-containers", "--prefix")
    assert "[pod/again/first] initialized" in prefixed
    refused = path.kubectl("logs", "bytes", "--previous", code=1)
    assert 'previous terminated container "main" in pod "bytes" not found' in refused

    numbers = [*map(str, range(1, _LINES + 1)), "last"]
    path.until(lambda: path.kubectl("logs", "flood", "--tail=1") == "last\n", "end of the flood")
    assert [line.partition(" ")[0] for line in path.kubectl("logs", "flood").splitlines()] == numbers
    assert path.kubectl("logs", "flood", "--tail=14000").partition(" ")[0] == str(_LINES + 1 - 13999)
    following.join(60)
    assert seen == numbers


def _follow(path: ThePath, name: str) -> Iterator[str]:
    """The first words of what `kubectl logs --follow` prints, up to the word `last`."""
    command = ("kubectl", "logs", "--follow", name)
    with subprocess.Popen(command, env=path.installation.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield (word := line.split(" ", 1)[0].strip())
            if word == "last":
                process.terminate()
                return


def _raw(path: ThePath, *arguments: str) -> str:
    """What `kubectl logs` prints, with its carriage returns."""
    command = ("kubectl", "logs", *arguments)
    return subprocess.run(
        command, env=path.installation.environment, stdout=subprocess.PIPE, check=True
    ).stdout.decode()
