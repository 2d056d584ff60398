"""The OCI runtime configuration (Runtime Specification 1.0, `config.json`), with the properties that are used here."""

from __future__ import annotations

from typing import Required, TypedDict

from cumulet.instances.security.seccomp import SeccompProfile


class User(TypedDict):
    """The ids of a process, in the container's user namespace."""

    uid: int
    gid: int
    additionalGids: list[int]


class ResourceLimit(TypedDict):
    """A limit of setrlimit(2)."""

    type: str
    soft: int
    hard: int


class Process(TypedDict):
    """The process of a container, or a further one in it."""

    terminal: bool
    user: User
    args: list[str]
    env: list[str]
    cwd: str
    rlimits: list[ResourceLimit]
    oomScoreAdj: int
    capabilities: dict[str, list[str]]
    noNewPrivileges: bool


class Root(TypedDict):
    """The root file system."""

    path: str
    readonly: bool


class MountPoint(TypedDict):
    """A mount in the container."""

    destination: str
    type: str
    source: str
    options: list[str]


class Namespace(TypedDict, total=False):
    """A namespace: a new one, or the one that a file names."""

    type: Required[str]
    path: str


class IdMapping(TypedDict):
    """A range of ids in the container, and on this machine."""

    containerID: int
    hostID: int
    size: int


class Device(TypedDict):
    """A rule of the device control group."""

    allow: bool
    access: str


class Resources(TypedDict):
    """The limits of the control group; memory in bytes, processor time in microseconds; one that is absent is none."""

    cpu: dict[str, int]
    memory: dict[str, int]
    pids: dict[str, int]
    devices: list[Device]


class Linux(TypedDict, total=False):
    """The part that is specific to Linux."""

    namespaces: list[Namespace]
    uidMappings: list[IdMapping]
    gidMappings: list[IdMapping]
    cgroupsPath: str
    resources: Resources
    sysctl: dict[str, str]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    seccomp: SeccompProfile


class Configuration(TypedDict):
    """A container."""

    ociVersion: str
    process: Process
    root: Root
    hostname: str
    mounts: list[MountPoint]
    linux: Linux
