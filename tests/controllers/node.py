"""A stand-in for nodes and their kubelets: it registers a node and plays the life of the pods that are bound to it.

It speaks the public protocol only. What becomes of a pod is written in its annotation `life`: `runs` (the default),
`unready`, `waits`, `succeeds`, or `fails` (with the exit code in `exit-code`).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from tests.kube.conftest import Server

#: Seconds between two heartbeats.
_BEAT = 1.5


class StandInNode:
    """A node, until closed."""

    def __init__(
        self,
        server: Server,
        name: str,
        *,
        labels: dict[str, str] | None = None,
        taints: list[dict[str, str]] | None = None,
        **allocatable: str,
    ) -> None:
        self.name = name
        self._server = server
        self._numbers: dict[str, int] = {}  # by the uid, which keeps its address
        self._closed = False
        metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
        server.make("/api/v1/nodes", {"metadata": metadata, "spec": {"taints": taints or []}})
        has = {"cpu": "8", "memory": "16Gi", "pods": "110"} | allocatable
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
        status = {"capacity": has, "allocatable": has, "conditions": [ready | {"lastTransitionTime": _now()}]}
        self._patch(f"/api/v1/nodes/{name}/status", {"status": status})
        self._connection: http.client.HTTPSConnection | None = None
        self._silent = threading.Event()
        self._heart = threading.Thread(target=self._beat)
        self._heart.start()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def fall_silent(self) -> None:
        """Send no more heartbeats."""
        self._silent.set()
        self._heart.join()

    def speak_up(self) -> None:
        """Send them again."""
        self._silent.clear()
        self._heart = threading.Thread(target=self._beat)
        self._heart.start()
        now = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
        self._patch(f"/api/v1/nodes/{self.name}/status", {"status": {"conditions": [now]}})

    def close(self) -> None:
        """Take the node away, if it is still there."""
        if self._closed:
            return
        self._closed = True
        self._silent.set()
        if self._connection is not None and self._connection.sock is not None:
            with contextlib.suppress(OSError):  # the server ended it at the same moment
                self._connection.sock.shutdown(2)
        self._heart.join()
        self._thread.join()
        self._server.call("DELETE", f"/api/v1/nodes/{self.name}")

    def _beat(self) -> None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}"
        while not self._silent.wait(_BEAT):
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            lease: dict[str, Any] = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
            lease["metadata"] = {"name": self.name, "namespace": "kube-node-lease"}
            lease["spec"] = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now}
            try:
                query = "fieldManager=kubelet&force=true"
                answer = self._server.call(
                    "PATCH", f"{path}?{query}", lease, content_type="application/apply-patch+yaml"
                )
                assert answer.status in (200, 201), answer.body
            except (OSError, http.client.HTTPException):
                continue  # the server is away for a moment

    def _run(self) -> None:
        address = self._server.cloud.config.addresses["kube"]
        while not self._closed:
            connection = http.client.HTTPSConnection(address.host, address.port, context=self._server.tls)
            self._connection = connection
            query = {"watch": "true", "fieldSelector": f"spec.nodeName={self.name}", "sendInitialEvents": "true"}
            query |= {"resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
            try:
                connection.request("GET", f"/api/v1/pods?{urlencode(query)}")
                for line in connection.getresponse():
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._live(event["object"])
            except (OSError, http.client.HTTPException):
                continue  # the server was killed, or this stand-in closed
            finally:
                connection.close()

    def _live(self, pod: dict[str, Any]) -> None:
        metadata, status = pod["metadata"], pod["status"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        annotations = metadata.get("annotations") or {}
        life = annotations.get("life", "runs")
        if metadata.get("deletionTimestamp"):
            if life != "lingers":
                options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
                self._server.call("DELETE", path, options)
            return
        if self._silent.is_set() and not self._closed:
            return  # what became of a pod is not told either
        if life == "waits" or status.get("phase", "Pending") in ("Succeeded", "Failed"):
            return
        containers = [container["name"] for container in pod["spec"]["containers"]]
        if life in ("succeeds", "fails"):
            code = int(annotations.get("exit-code", "1")) if life == "fails" else 0
            state: dict[str, Any] = {"terminated": {"exitCode": code, "finishedAt": _now()}}
            changed: dict[str, Any] = {"phase": "Failed" if code else "Succeeded"}
        else:
            state = {"running": {"startedAt": _now()}}
            changed = {"phase": "Running"}
        ready = life in ("runs", "lingers")
        known = {item["type"]: item["status"] for item in status.get("conditions") or ()}
        if status.get("phase") == changed["phase"] and known.get("Ready") == str(ready):
            return
        conditions = [{"type": kind, "status": str(ready)} for kind in ("Ready", "ContainersReady")]
        number = self._numbers.setdefault(metadata["uid"], len(self._numbers) + 1)
        address = f"10.9.{number // 250}.{number % 250 + 1}"
        changed |= {
            "conditions": [condition | {"lastTransitionTime": _now()} for condition in conditions],
            "podIP": status.get("podIP", address),
            "podIPs": [{"ip": status.get("podIP", address)}],
            "startTime": status.get("startTime", _now()),
            "containerStatuses": [
                {"name": name, "ready": ready, "restartCount": 0, "image": "x", "imageID": "", "state": state}
                for name in containers
            ],
        }
        self._patch(f"{path}/status", {"metadata": {"uid": metadata["uid"]}, "status": changed})

    def _patch(self, path: str, patch: Any) -> None:
        answer = self._server.call("PATCH", path, patch, content_type="application/strategic-merge-patch+json")
        assert answer.status in (200, 404, 409), answer.body


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
