"""What a container may do and what it sees of itself: users, groups, capabilities, sysctls, limits, names and resolver."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from tests.cases.path import IMAGE, ThePath, pod
from tests.instances.images import busybox_layer

_STATUS = "cat /proc/self/status"


def _once(name: str, script: str, container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod that runs a script once; `container` are further fields of its container."""
    command = ["sh", "-c", script]
    return pod(name, [{"name": "main", "command": command, **(container or {})}], restartPolicy="Never", **spec)


@pytest.fixture(scope="module")
def outputs(path: ThePath) -> dict[str, str]:
    """The outputs of pods, by name; all run at the same time."""
    path.push("bb-named:1", [busybox_layer()], Cmd=["sh"], User="web")
    path.push("bb-numbered:1", [busybox_layer()], Cmd=["sh"], User="1000")
    registry = IMAGE.partition("/")[0]
    named, numbered = f"{registry}/bb-named:1", f"{registry}/bb-numbered:1"
    volumes: list[dict[str, Any]] = [
        {"name": "s", "secret": {"secretName": "fskey", "defaultMode": 0o400}},
        {"name": "e", "emptyDir": {}},
        {"name": "m", "emptyDir": {"medium": "Memory"}},
    ]
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("s", "e", "m")]
    show_files = (
        "id -G; busybox stat -Lc '%n %g %a' /s /s/key /e /m; cat /s/key; echo x >/e/f; busybox stat -c '%g' /e/f"
    )
    bytes_of_280_mi = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max"
    wanted = [
        _once(
            "fs-group",
            show_files,
            {"volumeMounts": mounts},
            volumes=volumes,
            securityContext={"runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [3000]},
        ),
        _once("groups-merged", "id -G", securityContext={"runAsUser": 1001, "runAsGroup": 7}),
        _once(
            "groups-strict",
            "id -G",
            securityContext={"runAsUser": 1001, "supplementalGroups": [9], "supplementalGroupsPolicy": "Strict"},
        ),
        _once("user-of-image", "id", {"image": named}),
        _once("not-root", "id -u", {"image": numbered}, securityContext={"runAsNonRoot": True}),
        _once(
            "own-over-pods",
            "id -u; id -g",
            {"securityContext": {"runAsUser": 5, "runAsNonRoot": False}},
            securityContext={"runAsUser": 4, "runAsGroup": 6, "runAsNonRoot": True},
        ),
        _once(
            "capabilities",
            f"{_STATUS}; busybox httpd -p 80 && echo bound",
            {"securityContext": {"capabilities": {"drop": ["all"], "add": ["CAP_CHOWN", "NET_BIND_SERVICE", "ipc_lock"]}}},
        ),
        _once(
            "low-port",
            f"{_STATUS}; busybox httpd -p 80 && echo bound",
            {"securityContext": {"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False, "runAsUser": 1001}},
        ),
        _once(
            "sysctls",
            "cd /proc/sys; cat net/ipv4/tcp_keepalive_time net/ipv4/ip_unprivileged_port_start kernel/shm_rmid_forced",
            securityContext={
                "sysctls": [
                    {"name": "net.ipv4.tcp_keepalive_time", "value": "601"},
                    {"name": "net/ipv4/ip_unprivileged_port_start", "value": "81"},
                    {"name": "kernel.shm_rmid_forced", "value": "1"},
                ]
            },
        ),
        _once(
            "exact",
            f"dd if=/dev/zero of=/dev/null bs=240M count=1 2>/dev/null; {bytes_of_280_mi}; {quota}; cat /proc/self/cgroup",
            {
                "resources": {
                    "requests": {"memory": "280Mi", "cpu": "100m"},
                    "limits": {"memory": "280Mi", "cpu": "257m"},
                }
            },
        ),
        _once("unlimited", f"{quota}; cat /proc/self/oom_score_adj"),
        _once("read-only", "exec 2>&1; echo x >/file; echo y >/etc/hostname; echo z >>/etc/hosts && echo hosts", {"securityContext": {"readOnlyRootFilesystem": True}}),
        _once(
            "names",
            "hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf",
            hostname="web",
            subdomain="svc",
            setHostnameAsFQDN=True,
            hostAliases=[{"ip": "10.1.2.3", "hostnames": ["db.local", "db"]}, {"ip": "::7", "hostnames": ["six"]}],
            dnsPolicy="None",
            dnsConfig={
                "nameservers": ["192.0.2.53"],
                "searches": ["corp.example", "example"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
            },
        ),
        _once(
            "resolver",
            "cat /etc/resolv.conf",
            dnsConfig={"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3"], "options": [{"name": "ndots", "value": "3"}]},
        ),
        pod(
            "shared-memory",
            [
                {"name": "main", "command": ["sh", "-c", "until [ -e /dev/shm/x ]; do sleep 0.05; done; busybox df -k /dev/shm"]},
                {"name": "other", "command": ["sh", "-c", "echo >/dev/shm/x"]},
            ],
            restartPolicy="Never",
        ),
        _once("terminal", "busybox tty; echo $TERM", {"tty": True}),
    ]  # fmt: skip
    path.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "fskey"}, "stringData": {"key": "private\n"}},
        *wanted,
    )
    return {name: path.output(name, "-c", "main") for name in (item["metadata"]["name"] for item in wanted)}


def _capabilities(status: str) -> str:
    """The effective capabilities of a process, in hexadecimal."""
    return next(line.split()[1].lstrip("0") for line in status.splitlines() if line.startswith("CapEff"))


def test_volumes_belong_to_the_fs_group(outputs: dict[str, str]) -> None:
    assert outputs["fs-group"].splitlines() == [
        "0 2000 3000", "/s 2000 3777", "/s/key 2000 440", "/e 2000 2777", "/m 2000 3777", "private", "2000",
    ]  # fmt: skip


def test_groups_are_merged_with_those_of_the_image_or_strict(outputs: dict[str, str]) -> None:
    assert outputs["groups-merged"].split() == ["7", "1003"]
    assert outputs["groups-strict"].split() == ["1002", "9"]
    assert "uid=1001(web) gid=1002(web)" in outputs["user-of-image"]
    assert outputs["own-over-pods"].split() == ["5", "6"]
    assert outputs["not-root"] == "1000\n"


def test_capabilities_are_dropped_and_then_added(outputs: dict[str, str]) -> None:
    assert _capabilities(outputs["capabilities"]) == "4401"
    assert outputs["capabilities"].endswith("bound\n")


def test_a_user_without_capabilities_binds_low_ports(outputs: dict[str, str]) -> None:
    assert _capabilities(outputs["low-port"]) == ""
    assert "NoNewPrivs:\t1\n" in outputs["low-port"]
    assert outputs["low-port"].endswith("bound\n")


def test_sysctls_of_the_safe_set_are_set(outputs: dict[str, str]) -> None:
    assert outputs["sysctls"].split() == ["601", "81", "1"]


def test_limits_are_exact_and_a_container_sees_them(outputs: dict[str, str]) -> None:
    memory, quota, *groups = outputs["exact"].splitlines()
    assert memory == str(280 * 1024 * 1024)
    assert quota in ("25700", "25700 100000")
    assert all(group.endswith(":/") for group in groups)
    quota, score = outputs["unlimited"].splitlines()
    assert quota in ("-1", "max 100000")
    assert score == "1000"


def test_a_read_only_root_has_a_hosts_file_that_can_be_written(outputs: dict[str, str]) -> None:
    assert outputs["read-only"].splitlines() == [
        "sh: can't create /file: Read-only file system",
        "sh: can't create /etc/hostname: Read-only file system",
        "hosts",
    ]


def test_names_aliases_and_resolver_are_the_pods(outputs: dict[str, str]) -> None:
    lines = outputs["names"].splitlines()
    name = "web.svc.default.svc.cluster.local"
    assert lines[:3] == [name, name, "# Kubernetes-managed hosts file."]
    assert any(line.endswith(f"\t{name}\tweb") for line in lines)
    assert lines[-6:] == [
        "# Entries added by HostAliases.",
        "10.1.2.3\tdb.local\tdb",
        "::7\tsix",
        "search corp.example example",
        "nameserver 192.0.2.53",
        "options ndots:2 edns0",
    ]


def test_a_dns_config_is_added_to_the_clusters_and_cut_with_a_warning(path: ThePath, outputs: dict[str, str]) -> None:
    lines = outputs["resolver"].splitlines()
    servers = [line.split()[1] for line in lines if line.startswith("nameserver")]
    services = ipaddress.IPv4Network(path.installation.service_cidr)
    assert servers == [str(services[10]), "192.0.2.1", "192.0.2.2"]
    assert lines[0].split()[:4] == ["search", "default.svc.cluster.local", "svc.cluster.local", "cluster.local"]
    assert lines[-1] == "options ndots:3"
    assert " ".join(servers) in path.events("resolver", "DNSConfigForming")


def test_containers_share_memory_of_64_mib(outputs: dict[str, str]) -> None:
    assert outputs["shared-memory"].splitlines()[1].split()[1] == "65536"


def test_a_container_can_have_a_terminal(outputs: dict[str, str]) -> None:
    assert outputs["terminal"].split() == ["/dev/pts/0", "xterm"]


def test_what_is_not_allowed_is_named(path: ThePath) -> None:
    """A sysctl fails the pod, a capability and a user hold it back; each in the kubelet's words, or with the reason."""
    path.apply(
        _once("forbidden", "true", securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
        pod("administrator", [{"name": "main", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]),
        pod("root", [{"name": "main"}], securityContext={"runAsNonRoot": True}),
        _once("devices", "true", {"resources": {"limits": {"hugepages-2Mi": "2Mi", "memory": "1Mi", "cpu": "1m"}}}),
    )
    path.wait_phase("forbidden", "Failed")
    status = path.get("forbidden")["status"]
    assert (status["reason"], status["message"]) == (
        "SysctlForbidden", 'Pod was rejected: forbidden sysctl: "kernel.msgmax" not allowlisted',
    )  # fmt: skip
    assert "'SYS_ADMIN' is not allowed: it opens parts of the kernel" in path.events(
        "administrator", "ProviderCreateFailed"
    )
    waiting = path.until(lambda: _waiting(path, "root"), "reason why the pod waits")
    assert waiting["reason"] == "CreateContainerConfigError"
    assert "container has runAsNonRoot and image will run as root" in waiting["message"]
    assert "hugepages-2Mi" in path.events("devices", "FailedScheduling")


def _waiting(path: ThePath, name: str) -> dict[str, Any]:
    """The reason and the message of a container that waits for something else than its image."""
    found = path.kubectl("get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].state.waiting}")
    waiting: dict[str, Any] = json.loads(found) if found else {}
    return waiting if "message" in waiting else {}
