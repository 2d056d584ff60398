"""The processor time and memory of containers, from their control groups (cgroups(7), both versions).

Processor use is an average since the last measurement, or since the container's start.
"""

from __future__ import annotations

import time
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
#: Seconds after which a measurement is too old to compare with.
_OLD = 120.0
#: Seconds between two measurements that are compared.
_LEAST = 1.0
_CONTAINERS = 10_000


class Usage:
    """Reads control groups; it keeps the last two measurements of each container's processor time."""

    def __init__(self) -> None:
        self._measured: dict[str, list[tuple[float, int]]] = {}

    def millicores(self, control_group: str, started: float | None) -> float | None:
        """Return the processor use of a container, or `None` when it has ended.

        `control_group` is the path of its control group, `started` the time of its start in seconds since 1970.
        """
        used = _processor_time(control_group)
        if used is None:
            return None
        now = time.time()
        recent = [item for item in self._measured.get(control_group, []) if now - item[0] < _OLD]
        before = next((item for item in reversed(recent) if now - item[0] >= _LEAST), None)
        if before is None:
            before = (started if started is not None else now, 0)
        self._measured[control_group] = [*recent[-1:], (now, used)]
        if len(self._measured) > _CONTAINERS:
            self._measured.clear()
        return max(used - before[1], 0) / max(now - before[0], 0.001) / 1_000_000


def memory(control_group: str) -> float | None:
    """Return the bytes that a container uses, without cached files that the kernel can reclaim; `None` when it has ended."""
    for used, stat, idle in (
        (
            _CGROUPS / control_group / "memory.current",
            _CGROUPS / control_group / "memory.stat",
            "inactive_file",
        ),
        (
            _CGROUPS / "memory" / control_group / "memory.usage_in_bytes",
            _CGROUPS / "memory" / control_group / "memory.stat",
            "total_inactive_file",
        ),
    ):
        whole, detail = _read(used), _read(stat)
        if whole is not None:
            cached = dict(line.split() for line in (detail or "").splitlines()).get(idle, "0")
            return max(int(whole) - int(cached), 0)
    return None


def _processor_time(control_group: str) -> int | None:
    """Return the nanoseconds of processor time that a container has used."""
    if (text := _read(_CGROUPS / control_group / "cpu.stat")) is not None:
        return int(dict(line.split() for line in text.splitlines())["usage_usec"]) * 1000
    text = _read(_CGROUPS / "cpuacct" / control_group / "cpuacct.usage")
    return int(text) if text is not None else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
