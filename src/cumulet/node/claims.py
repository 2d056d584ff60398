"""Persistent volume claims of pods: which disk of the provider is the volume of a claim.

The disks are those of `disk.csi.azure.com`, whose controller is `provisioner`.
"""

from __future__ import annotations

import re
import time

from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.objects import PersistentVolume, PersistentVolumeClaim, Pod, Volume
from cumulet.node.errors import MissingError, UnsupportedError
from cumulet.node.resource import GroupAzureDisk

DRIVER = "disk.csi.azure.com"
#: The provider's error for a disk that another machine has attached.
ATTACHED_ELSEWHERE = "ConflictingUserInput"
_DISK = re.compile(
    r"(?ai:/subscriptions/[0-9a-f-]{36}/resourceGroups/[-A-Za-z0-9_.()]{1,90}/providers/Microsoft\.Compute/disks/"
    r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?)"
)
_BOUND = "pv.kubernetes.io/bind-completed"
#: Seconds for which a claim may be unbound before the pod says so, and until the next look.
_PATIENCE = 3.0


class UnboundError(MissingError):
    """A claim is not bound yet, as is usual for a moment after its pod got a node."""


class Claims:
    """Reads claims and their volumes."""

    def __init__(self, claims: Informer[PersistentVolumeClaim], volumes: Informer[PersistentVolume]) -> None:
        self._claims = claims
        self._volumes = volumes
        #: When a pod was first seen with a claim that is not bound, in monotonic time, by uid.
        self._since: dict[str, float] = {}

    def disk(self, pod: Pod, volume: Volume) -> GroupAzureDisk | None:
        """Return the disk of a volume, `None` if the volume has no claim. Raises `MissingError`, `UnsupportedError`."""
        source = volume.get("persistentVolumeClaim")
        name = claim_of(pod, volume)
        if name is None:
            return None
        namespace = pod["metadata"]["namespace"]
        claim = self._claims.get(name, namespace)
        if claim is None:
            raise MissingError(f'persistentvolumeclaim "{name}" not found')
        bound = self._volumes.get(claim["spec"].get("volumeName") or "")
        if bound is None or _BOUND not in (claim["metadata"].get("annotations") or {}):
            self._wait(pod, f"PVC {namespace}/{name} is not bound: its events say why (kubectl describe pvc {name})")
        assert bound is not None
        disk: GroupAzureDisk = {"diskURI": disk_of(bound)}
        if source is not None and source.get("readOnly"):
            disk["readOnly"] = True
        return disk

    def forget(self, uid: str) -> None:
        """Forget a pod that is gone or has its disks."""
        self._since.pop(uid, None)

    def _wait(self, pod: Pod, message: str) -> None:
        """Raise that a claim is not bound: quietly at first."""
        since = self._since.setdefault(pod["metadata"]["uid"], time.monotonic())
        if time.monotonic() - since < _PATIENCE:
            raise UnboundError(message, again=_PATIENCE)
        raise MissingError(message)


def claims_of(pod: Pod) -> set[str]:
    """Return the names of the claims of a pod."""
    names = (claim_of(pod, volume) for volume in pod["spec"].get("volumes") or ())
    return {name for name in names if name is not None}


def claim_of(pod: Pod, volume: Volume) -> str | None:
    """Return the name of the claim of a volume, or `None`."""
    if (source := volume.get("persistentVolumeClaim")) is not None:
        return source["claimName"]
    if volume.get("ephemeral"):
        return f"{pod['metadata']['name']}-{volume['name']}"
    return None


def disk_of(volume: PersistentVolume) -> str:
    """Return the resource id of the disk of a volume. Raises `UnsupportedError` for a volume that is no disk."""
    csi = volume["spec"].get("csi")
    if csi is None or csi.get("driver") != DRIVER:
        kind = f"the driver {csi['driver']}" if csi is not None else "a source"
        raise UnsupportedError(
            f"PersistentVolume {volume['metadata']['name']} has {kind} that the nodes here lack: they have {DRIVER}"
        )
    handle = str(csi.get("volumeHandle", ""))
    if not _DISK.fullmatch(handle):
        raise UnsupportedError(
            f"the volumeHandle of PersistentVolume {volume['metadata']['name']} is not the id of a disk"
        )
    return handle
