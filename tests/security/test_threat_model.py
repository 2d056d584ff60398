"""The threat model names the tests that hold it: each that it names exists, and each that exists is named."""

from __future__ import annotations

import re
from pathlib import Path

_TESTS = Path(__file__).parent
_TOP = _TESTS.parents[1]
_MODULE = re.compile(r"`(test_[a-z0-9_]+\.py)`")
_SEAM = re.compile(r"^\| [^|]*→[^|]* \|.*$", re.MULTILINE)


def _text() -> str:
    return (_TOP / "SECURITY.md").read_text()


def test_each_module_is_named_and_there() -> None:
    named = set(_MODULE.findall(_text()))
    assert named == {path.name for path in _TESTS.glob("test_*.py")}


def test_each_seam_has_its_tests() -> None:
    seams = _SEAM.findall(_text())
    assert len(seams) >= 20
    untested = [seam for seam in seams if not _MODULE.search(seam.rsplit("|", 2)[1])]
    assert untested == []


def test_the_readme_leads_here() -> None:
    assert "(SECURITY.md)" in (_TOP / "README.md").read_text()
