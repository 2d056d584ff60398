"""A kube-apiserver with etcd, on the machine and with the certificates of an installation, to be measured beside ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cumulet.common.config import Config
from tests.clients.control_plane import FOLDER, PROGRAMS, ControlPlane, find

NAME = "kube-apiserver with etcd"


def is_there() -> bool:
    """Whether the programs are in the folder that the environment names, or on the path."""
    return bool(os.environ.get(FOLDER)) and None not in (find(PROGRAMS["kube"]), find("etcd"))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[Config, tuple[int, int]]]:
    """Ready, with everything durable before it is answered; the installation and the processes."""
    plane = ControlPlane(folder / "data", "kube", theirs=frozenset({"kube"}), is_durable=True)
    try:
        yield plane.config, plane.api_server
    finally:
        plane.close()
