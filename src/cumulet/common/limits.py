"""The limits of an installation, each with the default of the software in whose place a room stands."""

from __future__ import annotations

from typing import Annotated

import msgspec


class RegistryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The registry's limits: sizes in bytes, times in seconds, rates in bytes a second.

    - A request whose body brings less than `upload_rate` on average over `upload_stall` is aborted.
    - An upload without a request for `upload_idle` is removed.
    - Unreferenced content is deleted `collection_grace` after a client last learned that it exists. This must be longer
      than the pauses of a client in a push.
    - `collection_interval` is the time between two garbage collections.
    - A login waits `login_wait` for identity and the front door, less than clients wait for a token.
    """

    manifest_bytes: int = 4 * 1024**2
    blob_bytes: int = 200 * 1024**3
    page_entries: int = 1000
    upload_stall: float = 120.0
    upload_rate: float = 240.0
    upload_idle: float = 24 * 3600.0
    collection_grace: float = 3600.0
    collection_interval: float = 600.0
    login_wait: float = 10.0


class InstanceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The quotas of container groups in a region: their number, and the vCPUs of those that run.

    The defaults are ACI's 100 of each, and the capacity of the virtual node.
    """

    container_groups: int = 5_100
    cores: int = 10_100


class ImageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the image cache of container groups, with a kubelet's defaults. Times are in seconds.

    - Above `high_threshold_percent` of the disk (kubelet: `imageGCHighThresholdPercent`), images that nothing uses are
      deleted, the least recently used first, down to `low_threshold_percent`.
    - `cache_bytes` is a bound of the cache itself, if it is set.
    - Images younger than `minimum_age` are kept. The disk is checked each `interval`, and after pulls.
    """

    high_threshold_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 85
    low_threshold_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 80
    cache_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    minimum_age: float = 120.0
    interval: float = 300.0


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The time limits of the rooms' HTTP servers, in seconds.

    `handshake` is the limit for the TLS handshake, `head` for the whole head of a request, and `idle` between two
    requests. A body must bring `body_rate` bytes a second on average, over each `body` seconds in which the server reads.
    """

    handshake: float = 30.0
    head: float = 30.0
    idle: float = 90.0
    body: float = 60.0
    body_rate: float = 240.0


class ContainerLogs(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a container's log, as a kubelet's `containerLogMaxSize` (in bytes) and `containerLogMaxFiles`."""

    max_size: Annotated[int, msgspec.Meta(ge=1)] = 10 * 1024**2
    max_files: Annotated[int, msgspec.Meta(ge=2)] = 5


class DiskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of container groups on the disk.

    `group` is the limit, in bytes, of a group without any of its own. `nodefs_available` and `imagefs_available` are the
    shares of the disk, and `nodefs_inodes_free` of its files, below which the largest groups are evicted, as a kubelet's
    `evictionHard`; 0 turns that off.
    """

    group: Annotated[int, msgspec.Meta(ge=1)] = 20 * 1024**3
    nodefs_available: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.10
    nodefs_inodes_free: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    imagefs_available: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.15
