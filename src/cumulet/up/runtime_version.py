"""Checks whether runc has the fixes of the container escapes of November 2025, by its version or its Debian package."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

#: Container escapes through mounts over /proc. runc 1.2.8, 1.3.3 and 1.4.0-rc.3 fix them.
CVES = ("CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881")
_VERSION = re.compile(r"runc version (\d+)\.(\d+)\.(\d+)(?:-rc\.(\d+))?", re.ASCII)
_FILES = Path("/var/lib/dpkg/info/runc.list")
_CHANGELOG = Path("/usr/share/doc/runc/changelog.Debian.gz")


def missing_fixes(program: str = "runc") -> tuple[str, list[str]] | None:
    """Return the version of the runc on PATH and the CVEs that it lacks fixes of. `None` if there are none, or no runc."""
    path = shutil.which(program)
    if path is None:
        return None
    output = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version = output.partition("\n")[0].removeprefix("runc version ") or "of unknown version"
    if has_fixes(output):
        return None
    changelog = _changelog(Path(path).resolve())
    lacking = [name for name in CVES if name not in changelog]
    return (version, lacking) if lacking else None


def has_fixes(output: str) -> bool:
    """Return whether the output of `runc --version` is of a release with the fixes."""
    match = _VERSION.match(output)
    if match is None:
        return False
    major, minor, patch = (int(part) for part in match.groups()[:3])
    candidate = int(match[4]) if match[4] else None
    if (major, minor, patch) == (1, 4, 0):
        return candidate is None or candidate >= 3
    least = {(1, 2): 8, (1, 3): 3}.get((major, minor))
    return patch >= least if least is not None else (major, minor) >= (1, 4)


def _changelog(program: Path) -> str:
    """Return the changelog of the program's Debian package, or an empty string if it is of no package."""
    try:
        if str(program) not in _FILES.read_text().splitlines():
            return ""
        return gzip.decompress(_CHANGELOG.read_bytes()).decode(errors="replace")
    except OSError:
        return ""
