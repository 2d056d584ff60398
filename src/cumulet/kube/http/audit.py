"""The audit log: one line of JSON for each write, each read of a secret and each refusal.

The format is audit.k8s.io/v1 at level Metadata.
"""

from __future__ import annotations

import os
import random
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.ascii import fold
from cumulet.kube.access.users import User, user_info
from cumulet.kube.apimachinery.headers import readable
from cumulet.kube.http.request_info import Target

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import UserInfo

_SIZE = 16 * 1024 * 1024
_KEPT = 3
#: Reads of these resources are logged too.
_SENSITIVE = frozenset(("secrets", "serviceaccounts/token", "pods/exec", "pods/attach", "pods/portforward"))
#: Heartbeats and events are written all the time; their lines would only fill the log.
_CHATTER = frozenset(("leases.coordination.k8s.io", "events"))
_READS = frozenset(("get", "list", "watch"))


class _ObjectReference(msgspec.Struct, rename="camel"):
    resource: str
    namespace: str
    name: str
    api_group: str
    api_version: str
    subresource: str


class _ResponseStatus(msgspec.Struct):
    metadata: dict[str, str]
    code: int
    message: str | msgspec.UnsetType = msgspec.UNSET


class _Event(msgspec.Struct, kw_only=True, rename="camel"):
    """`Event` of audit.k8s.io/v1."""

    kind: str = "Event"
    api_version: str = "audit.k8s.io/v1"
    level: str = "Metadata"
    audit_id: str = msgspec.field(name="auditID")
    request_uri: str = msgspec.field(name="requestURI")
    verb: str
    source_ips: list[str] = msgspec.field(name="sourceIPs")
    user_agent: str
    response_status: _ResponseStatus
    request_received_timestamp: str
    stage_timestamp: str
    object_ref: _ObjectReference | msgspec.UnsetType = msgspec.UNSET
    stage: str
    user: UserInfo
    impersonated_user: UserInfo | msgspec.UnsetType = msgspec.UNSET


class AuditLog:
    """Appends to a file and rotates it by size; a line is written before its request is answered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._size = 0

    def open(self) -> None:
        """Open the file, readable by its owner only."""
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def is_logged(self, target: Target, status: int) -> bool:
        """Return whether a request is logged."""
        if status in (401, 403):
            return True
        if target.verb in _READS:
            full = f"{target.row.plural}/{target.subresource}" if target.subresource else target.row.plural
            return full in _SENSITIVE and not target.row.group
        return target.row.key not in _CHATTER

    def write(
        self, request: web.BaseRequest, real: User, user: User, target: Target, status: int, seconds: float
    ) -> None:
        """Write the line of an answered request.

        `user` differs from `real` where the caller impersonates. `seconds` is how long the answer took.
        """
        event = _event(request, target, status, seconds, "ResponseComplete", user_info(real))
        if user is not real:
            event.impersonated_user = user_info(user)
        self._append(event)

    def refused(self, request: web.BaseRequest, target: Target | None, seconds: float) -> None:
        """Write the line of a request whose credentials were refused; the line has no user."""
        event = _event(request, target, 401, seconds, "ResponseStarted", {})
        event.response_status.message = "Authentication failed, attempted: bearer"
        self._append(event)

    def _append(self, event: _Event) -> None:
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


def _event(
    request: web.BaseRequest, target: Target | None, status: int, seconds: float, stage: str, user: UserInfo
) -> _Event:
    now = clock.now()
    peer = request.transport.get_extra_info("peername") if request.transport else None
    event = _Event(
        audit_id=str(uuid.UUID(int=random.getrandbits(128), version=4)),  # an identifier, not a secret
        request_uri=request.raw_path,
        verb=target.verb if target is not None else fold(request.method),
        source_ips=[peer[0]] if peer else [],
        user_agent=readable(request.headers.get("User-Agent", "")),
        response_status=_ResponseStatus({}, status),
        request_received_timestamp=clock.rfc3339_micro(now - timedelta(seconds=seconds)),
        stage_timestamp=clock.rfc3339_micro(now),
        stage=stage,
        user=user,
    )
    if target is not None:
        row = target.row
        event.object_ref = _ObjectReference(
            row.plural, target.namespace, target.name, row.group, row.version, target.subresource
        )
    return event
