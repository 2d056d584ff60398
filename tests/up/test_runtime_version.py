"""The versions of runc that are reported as vulnerable."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cumulet.up import runtime_version
from cumulet.up.preflight import warnings
from cumulet.up.runtime_version import CVES, has_fixes


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ("1.1.5+ds1", False), ("1.1.15+ds1", False), ("1.2.7", False), ("1.2.8", True), ("1.2.10-dev", True),
        ("1.3.0-rc.1", False), ("1.3.2", False), ("1.3.3", True), ("1.4.0-rc.2", False), ("1.4.0-rc.3", True),
        ("1.4.0", True), ("1.5.0-rc.1", True), ("2.0.0", True), ("unknown", False),
    ],
)  # fmt: skip
def test_the_fixes_came_with_three_releases(version: str, fixed: bool) -> None:
    assert has_fixes(f"runc version {version}\ncommit: x\n") is fixed


def test_a_package_with_the_fixes_is_as_good_as_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "runc"
    program.write_text("#!/bin/sh\necho runc version 1.1.5+ds1\n")
    program.chmod(0o755)
    files, changelog = tmp_path / "runc.list", tmp_path / "changelog.Debian.gz"
    monkeypatch.setattr(runtime_version, "_FILES", files)
    monkeypatch.setattr(runtime_version, "_CHANGELOG", changelog)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    [problem] = warnings()
    assert problem.what.startswith(f"runc 1.1.5+ds1 lacks the fixes of {', '.join(CVES)}")
    changelog.write_bytes(gzip.compress(b"  * CVE-2025-31133, CVE-2025-52565\n"))
    assert len(warnings()) == 1, "the file is not the package's"
    files.write_text(f"/.\n{program}\n")
    [problem] = warnings()
    assert "lacks the fixes of CVE-2025-52881," in problem.what
    changelog.write_bytes(gzip.compress("".join(f"  * {name}\n" for name in CVES).encode()))
    assert warnings() == []
