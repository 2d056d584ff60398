"""Runs a kube-apiserver with etcd, with the certificates of an installation, for comparison."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cumulet.common.config import Config
from tests.clients.control_plane import FOLDER, PROGRAMS, ControlPlane, find

NAME = "kube-apiserver with etcd"


def is_installed() -> bool:
    """Return whether the programs are in the folder that the environment names, or on PATH."""
    return bool(os.environ.get(FOLDER)) and None not in (find(PROGRAMS["kube"]), find("etcd"))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[Config, tuple[int, int]]]:
    """Start it with durable writes, and yield the installation and the process ids."""
    plane = ControlPlane(folder / "data", "kube", theirs=frozenset({"kube"}), is_durable=True)
    try:
        yield plane.config, plane.api_server
    finally:
        plane.close()
