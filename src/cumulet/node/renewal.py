"""Keeps the volumes of running pods current: secrets, config maps, fields and tokens."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence

import msgspec

from cumulet.common.arm import ArmError
from cumulet.common.kubernetes.objects import Pod
from cumulet.node.aci import ContainerGroups
from cumulet.node.errors import MissingError
from cumulet.node.resource import GroupVolume
from cumulet.node.tokens import Tokens
from cumulet.node.volumes import Volumes

log = logging.getLogger(__name__)

#: Records the kubelet's event about a volume without content.
Report = Callable[[str], None]


class Renewal:
    """What was sent of the volumes of each pod, by its uid."""

    def __init__(self, groups: ContainerGroups, volumes: Volumes, tokens: Tokens) -> None:
        self._aci = groups
        self._volumes = volumes
        self._tokens = tokens
        self._versions: dict[str, object] = {}
        self._sent: dict[str, dict[str, bytes]] = {}

    def sent(self, pod: Pod, versions: object, volumes: Sequence[GroupVolume]) -> None:
        """Record volumes that a group has, and the versions that were current when they were read."""
        uid = pod["metadata"]["uid"]
        self._versions[uid] = versions
        self._sent.setdefault(uid, {}).update((volume["name"], _digest(volume)) for volume in volumes)

    def forget(self, uid: str) -> None:
        """Forget a pod that is gone."""
        self._versions.pop(uid, None)
        self._sent.pop(uid, None)
        self._volumes.forget(uid)
        self._tokens.forget(uid)

    async def renew(self, pod: Pod, group: str, report: Report) -> float | None:
        """Send the volumes whose content differs; return the seconds until the next call, or `None`.

        A volume without content keeps what it had. Raises `ArmError`.
        """
        uid = pod["metadata"]["uid"]
        versions = self._volumes.versions(pod)
        due = self._tokens.due_in(pod)
        if self._versions.get(uid) == versions and due != 0:
            return due
        known = self._sent.get(uid, {})
        changed: list[GroupVolume] = []
        again: list[float] = []
        for volume in pod["spec"].get("volumes") or ():
            if "emptyDir" in volume:
                continue
            try:
                found = await self._volumes.of(pod, volume)
            except MissingError as error:
                report(str(error))
                if error.again is not None:
                    again.append(error.again)
                continue
            if known.get(volume["name"]) != _digest(found):
                changed.append(found)
        if changed:
            try:
                await self._aci.patch(group, {"properties": {"volumes": changed}})
            except ArmError as error:
                if error.status >= 500 or error.status in (408, 409, 429):
                    raise
                names = ", ".join(volume["name"] for volume in changed)
                report(f"the volumes {names} keep their content: {error.code}: {error}")
        self.sent(pod, versions, changed)
        if again:
            self._versions.pop(uid)
        due = self._tokens.due_in(pod)
        return min([*again, *([] if due is None else [due])], default=None)


def _digest(volume: GroupVolume) -> bytes:
    return hashlib.sha256(msgspec.json.encode(volume, order="deterministic")).digest()
