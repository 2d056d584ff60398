"""Kubernetes' own API server, scheduler and controller manager in place of Cumulet's rooms, as the same users.

The environment variable CUMULET_KUBERNETES_BIN names the folder of the programs. etcd is there or on PATH.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cumulet.common import config as settings
from cumulet.common import private_files
from cumulet.common.config import Address, AuthorityName, RoomName
from cumulet.common.room import listen
from tests.cloud import Cloud

FOLDER = "CUMULET_KUBERNETES_BIN"
PROGRAMS: dict[RoomName, str] = {
    "kube": "kube-apiserver",
    "scheduler": "kube-scheduler",
    "controllers": "kube-controller-manager",
}
#: Seconds in which a program must be ready.
_PATIENCE = 60


def needed(*names: str) -> None:
    """Skip the test if a program is missing."""
    folder = os.environ.get(FOLDER)
    if not folder:
        pytest.skip(f"{FOLDER} names no folder with the programs of Kubernetes")
    missing = [name for name in names if find(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: neither in {folder} nor on the path")


def find(name: str) -> str | None:
    """Return the path of a program in the folder or on PATH."""
    return shutil.which(name, path=f"{os.environ.get(FOLDER, '')}{os.pathsep}{os.environ['PATH']}")


class ControlPlane(Cloud):
    """An installation in which programs of Kubernetes replace some rooms.

    Writes through Kubernetes' API server are durable only with `is_durable`. It verifies kubelet certificates if the nodes
    are this installation's.
    """

    def __init__(
        self,
        data_dir: Path,
        *rooms: RoomName,
        theirs: frozenset[RoomName],
        is_durable: bool = False,
        knows_nodes: bool = True,
        **configured: Any,
    ) -> None:
        self.theirs = theirs
        self._is_durable = is_durable
        self._knows_nodes = knows_nodes
        self._etcd = 0
        try:
            super().__init__(data_dir, *rooms, **configured)
        except BaseException:
            self.close()
            raise

    @property
    def api_server(self) -> tuple[int, int]:
        """The processes of Kubernetes' API server and of etcd."""
        return self._running["kube"], self._etcd

    def _listen(self, name: RoomName) -> list[socket.socket]:
        return [] if name in self.theirs else super()._listen(name)

    def start(self, name: RoomName) -> None:
        """Start a room, or the program that replaces it."""
        if name not in self.theirs:
            super().start(name)
            return
        if name == "kube" and not self._etcd:
            self._start_etcd()
        self._running[name] = self._start(name, self.config.addresses[name])
        if name == "kube":
            self._give_rights()

    def _give_rights(self) -> None:
        """Grant the rights that Kubernetes does not have by default, as in docs/own-cluster.md."""
        manifest = Path(__file__).parents[2] / "examples" / "own-cluster" / "roles.yaml"
        command = ["kubectl", "--kubeconfig", self.config.kubeconfig_file("admin"), "apply", "-f", manifest]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        # A kubelet authorizes the API server by the name in its client certificate.
        binding = [
            *command[:3],
            "create",
            "clusterrolebinding",
            "kubelet-api-admin",
            "--dry-run=client",
            "-o",
            "json",
        ]
        binding += ["--clusterrole=system:kubelet-api-admin", f"--user={settings.KUBELET_CLIENT}"]
        made = subprocess.run([str(word) for word in binding], check=True, capture_output=True).stdout
        subprocess.run(
            [*(str(word) for word in command[:3]), "apply", "-f", "-"],
            check=True,
            input=made,
            stdout=subprocess.DEVNULL,
        )

    def _start(self, name: RoomName, address: Address) -> int:
        command = [
            *getattr(self, f"_{name}_command")(),
            "--bind-address",
            address.host,
            "--secure-port",
            str(address.port),
        ]
        process = self._spawn(PROGRAMS[name], command)
        self._wait(address, "/readyz" if name == "kube" else "/healthz", process, name)
        return process

    def _spawn(self, program: str, command: list[str]) -> int:
        path = find(program)
        assert path is not None
        log = self.config.data_dir / "logs" / f"{program}.log"
        log.parent.mkdir(mode=0o700, exist_ok=True)
        output = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        files = [(os.POSIX_SPAWN_OPEN, number, str(log), output, 0o600) for number in (1, 2)]
        return os.posix_spawn(path, [path, *command], os.environ, file_actions=files)

    def _wait(self, address: Address, path: str, process: int, what: str) -> None:
        """Poll until a program is ready, because it does not signal readiness."""
        context = ssl.create_default_context(cafile=str(self.config.ca_file))
        pause = threading.Event()
        for _ in range(_PATIENCE * 10):
            assert os.waitpid(process, os.WNOHANG) == (0, 0), f"{what} ended: see {self.config.data_dir}/logs"
            connection = http.client.HTTPSConnection(address.host, address.port, context=context, timeout=5)
            try:
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pause.wait(0.1)
                continue
            finally:
                connection.close()
            pause.wait(0.1)
        raise AssertionError(f"{what} is not ready: see {self.config.data_dir}/logs")

    def _start_etcd(self) -> None:
        sockets = [listen(Address("127.0.0.1", 0)) for _ in range(2)]
        client, peer = (f"http://127.0.0.1:{item.getsockname()[1]}" for item in sockets)
        for item in sockets:
            item.close()
        self._etcd_url = client
        self._etcd = self._spawn(
            "etcd",
            [
                *("--data-dir", str(self.config.data_dir / "etcd")),
                *(() if self._is_durable else ("--unsafe-no-fsync",)),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"default={peer}"),
            ],
        )

    def _kube_command(self) -> list[str]:
        certificate, key = (str(path) for path in self.config.certificate_files("kube"))
        shown, shown_key = (str(path) for path in self.config.kubelet_client_files)
        signing = str(self._signing_key())
        return [
            *("--etcd-servers", self._etcd_url),
            *("--tls-cert-file", certificate, "--tls-private-key-file", key),
            *("--client-ca-file", str(self.config.authority_file("cluster"))),
            *("--kubelet-client-certificate", shown, "--kubelet-client-key", shown_key),
            *self._kubelet_authority,
            *("--kubelet-preferred-address-types", "InternalIP"),
            *("--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction"),
            *("--service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
            *("--service-account-key-file", signing, "--service-account-signing-key-file", signing),
            *("--service-cluster-ip-range", self.config.service_cidr),
            *("--endpoint-reconciler-type", "none"),
            # The watch cache requires etcd 3.4.31 or 3.5.13. Without it, every etcd works.
            "--watch-cache=false",
        ]

    def _scheduler_command(self) -> list[str]:
        return self._as("scheduler")

    def _controllers_command(self) -> list[str]:
        return [
            *self._as("controllers"),
            *("--root-ca-file", str(self.config.ca_file)),
            *self._signer("kube-apiserver-client", "cluster"),
            *self._signer("kubelet-client", "cluster"),
            *self._signer("kubelet-serving", "kubelet-serving"),
            *("--service-account-private-key-file", str(self._signing_key()), "--use-service-account-credentials"),
            *("--max-endpoints-per-slice", "4", "--node-monitor-grace-period", "16s", "--node-monitor-period", "1s"),
        ]

    @property
    def _kubelet_authority(self) -> list[str]:
        authority = str(self.config.authority_file("kubelet-serving"))
        return ["--kubelet-certificate-authority", authority] if self._knows_nodes else []

    def _signer(self, signer: str, authority: AuthorityName) -> list[str]:
        files = self.config.authority_file(authority), self.config.authority_key_file(authority)
        return [
            f"--cluster-signing-{signer}-{kind}-file={file}"
            for kind, file in zip(("cert", "key"), files, strict=True)
        ]

    def _as(self, name: RoomName) -> list[str]:
        kubeconfig = str(self.config.kubeconfig_file(name))
        kinds = ("--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig")
        certificate, key = (str(path) for path in self.config.certificate_files(name))
        shown = ["--tls-cert-file", certificate, "--tls-private-key-file", key]
        return [*(word for kind in kinds for word in (kind, kubeconfig)), *shown]

    def _signing_key(self) -> Path:
        """Return the key that signs service account tokens: the room's, or a new one for Kubernetes' API server."""
        path = self.config.room_dir("kube") / "service-accounts.key"
        if "kube" in self.theirs and not path.exists():
            made = ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
            private_files.write_private(path, made)
        return path

    @contextlib.contextmanager
    def another(self, name: RoomName) -> Iterator[None]:
        """Run a second copy of a room or program."""
        if name not in self.theirs:
            with super().another(name):
                yield
            return
        free = listen(Address("127.0.0.1", 0))
        address = Address("127.0.0.1", free.getsockname()[1])
        free.close()
        second = self._start(name, address)
        try:
            yield
        finally:
            os.kill(second, signal.SIGTERM)
            os.waitpid(second, 0)

    def close(self) -> None:
        """Stop everything."""
        super().close()
        if self._etcd:
            os.kill(self._etcd, signal.SIGTERM)
            os.waitpid(self._etcd, 0)
