"""Containers that share their processes: each sees and signals those of the others, and takes none of them along when it ends."""

from __future__ import annotations

from tests.cases.path import ThePath, pod


def test_containers_share_their_processes(path: ThePath) -> None:
    first = {"name": "first", "command": ["sh", "-c", "exec sleep 7001"]}
    # The second leaves a process behind when its first one ends.
    second = {"name": "second", "command": ["sh", "-c", "sleep 7002 & exec sleep 7003"]}
    path.apply(pod("shared", [first, second], shareProcessNamespace=True))
    path.wait("pod/shared", "condition=Ready")

    def processes() -> dict[str, str]:
        listed = path.kubectl("exec", "shared", "-c", "first", "--", "busybox", "ps", "-o", "pid,args")
        rows = [line.split(maxsplit=1) for line in listed.splitlines()[1:]]
        return {command: pid for pid, command in rows}

    found = processes()
    assert found.keys() >= {"/pause", "sleep 7001", "sleep 7002", "sleep 7003"}
    assert found["/pause"] == "1"
    # The first process has no files of the machine to show, and does not end.
    denied = path.kubectl("exec", "shared", "-c", "first", "--", "ls", "/proc/1/root/", code=1)
    assert "Permission denied" in denied
    path.kubectl("exec", "shared", "-c", "second", "--", "busybox", "kill", "-9", "1")

    path.kubectl("exec", "shared", "-c", "first", "--", "busybox", "kill", found["sleep 7003"])
    state = "{.status.containerStatuses[?(@.name=='second')].restartCount}"
    path.wait("pod/shared", f"jsonpath={state}=1")
    path.wait("pod/shared", "condition=Ready")
    again = processes()
    assert again["sleep 7001"] == found["sleep 7001"]
    assert again["sleep 7002"] != found["sleep 7002"], "it outlived its container"
    assert again["/pause"] == "1"
    path.kubectl("delete", "pod", "shared", "--wait=false")
