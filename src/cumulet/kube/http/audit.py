"""The audit log: who wrote, or read secrets, or was refused, a line of JSON each (audit.k8s.io/v1, level Metadata)."""

from __future__ import annotations

import os
import random
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.ascii import fold
from cumulet.kube.access.users import User, user_info
from cumulet.kube.apimachinery.headers import readable
from cumulet.kube.http.request_info import Target

_SIZE = 16 * 1024 * 1024
_KEPT = 3
#: Reading these is worth a line too.
_SENSITIVE = frozenset(("secrets", "serviceaccounts/token", "pods/exec", "pods/attach", "pods/portforward"))
#: Heartbeats and their like are written all the time and tell nothing.
_CHATTER = frozenset(("leases.coordination.k8s.io", "events"))
_READS = frozenset(("get", "list", "watch"))


class AuditLog:
    """Appends to a file, which is set aside when it has grown; a line is written before its request is answered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._size = 0

    def open(self) -> None:
        """Open the file, for its owner alone."""
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def wants(self, target: Target, status: int) -> bool:
        """Whether a request leaves a line."""
        if status in (401, 403):
            return True
        if target.verb in _READS:
            full = f"{target.row.plural}/{target.subresource}" if target.subresource else target.row.plural
            return full in _SENSITIVE and not target.row.group
        return target.row.key not in _CHATTER

    def write(
        self, request: web.BaseRequest, real: User, user: User, target: Target, status: int, seconds: float
    ) -> None:
        """Write the line of a request that was answered; `user` is another than `real` where that one impersonates; `seconds` is
        how long the answer took.
        """
        event = _event(request, target, status, seconds) | {"stage": "ResponseComplete", "user": user_info(real)}
        if user is not real:
            event["impersonatedUser"] = user_info(user)
        self._append(event)

    def refused(self, request: web.BaseRequest, target: Target | None, seconds: float) -> None:
        """Write the line of a request whose sender showed credentials that are not good, so that it is nobody's."""
        event = _event(request, target, 401, seconds) | {"stage": "ResponseStarted", "user": {}}
        event["responseStatus"]["message"] = "Authentication failed, attempted: bearer"
        self._append(event)

    def _append(self, event: dict[str, Any]) -> None:
        line = msgspec.json.encode(event) + b"\n"
        if self._size + len(line) > _SIZE:
            self._set_aside()
        self._size += os.write(self._file, line)

    def _set_aside(self) -> None:
        self.close()
        for number in range(_KEPT, 1, -1):
            older = self._path.with_suffix(f".log.{number - 1}")
            if older.exists():
                older.replace(self._path.with_suffix(f".log.{number}"))
        self._path.replace(self._path.with_suffix(".log.1"))
        self.open()


def _event(request: web.BaseRequest, target: Target | None, status: int, seconds: float) -> dict[str, Any]:
    now = clock.now()
    peer = request.transport.get_extra_info("peername") if request.transport else None
    event: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": str(uuid.UUID(int=random.getrandbits(128), version=4)),  # told apart, not kept secret
        "requestURI": request.raw_path,
        "verb": target.verb if target is not None else fold(request.method),
        "sourceIPs": [peer[0]] if peer else [],
        "userAgent": readable(request.headers.get("User-Agent", "")),
        "responseStatus": {"metadata": {}, "code": status},
        "requestReceivedTimestamp": clock.rfc3339_micro(now - timedelta(seconds=seconds)),
        "stageTimestamp": clock.rfc3339_micro(now),
    }
    if target is not None:
        event["objectRef"] = {
            "resource": target.row.plural,
            "namespace": target.namespace,
            "name": target.name,
            "apiGroup": target.row.group,
            "apiVersion": target.row.version,
            "subresource": target.subresource,
        }
    return event
