"""Images made by hand and a registry that we did not write to push them to (Debian's `docker-registry`, by skopeo)."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cumulet.common.config import Config

if sys.version_info >= (3, 14):
    from compression import zstd as library
else:
    from backports import zstd as library

USERNAME, PASSWORD = "puller", "pull-secret"
#: bcrypt of PASSWORD, as `htpasswd -B` writes it.
_HTPASSWD = f"{USERNAME}:$2y$04$abcdefghijklmnopqrstuuH5wTQzvC3Zall/mZjSDa23DrVdMWhT6\n"
PAGE = b"<h1>served from a container group</h1>\n"


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a layer; `fields` are those of `TarInfo`."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An uncompressed layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def programs_layer(*names: str) -> bytes:
    """Programs of this machine with their libraries, and what the C library needs to resolve names: the resolver of most images."""
    files: dict[str, Path] = {}
    for name in names:
        path = shutil.which(name)
        assert path is not None, f"these tests need {name}"
        files[f"bin/{name}"] = Path(path).resolve()
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout.split()
        files |= {word[1:]: Path(word).resolve() for word in listed if word.startswith("/")}
    content = [entry(name, path.read_bytes(), mode=0o755) for name, path in files.items()]
    return layer(*content, entry("etc/nsswitch.conf", b"hosts: files dns\n"))


def busybox_layer() -> bytes:
    """A shell, a web server and two accounts, all out of `busybox-static`."""
    binary = shutil.which("busybox")
    assert binary is not None, "these tests need Debian's busybox-static"
    applets = (
        "sh",
        "httpd",
        "sleep",
        "cat",
        "echo",
        "id",
        "env",
        "ls",
        "wget",
        "stty",
        "dd",
        "true",
        "false",
        "head",
    )
    folders = [entry(name, type=tarfile.DIRTYPE, mode=0o755) for name in ("bin", "etc", "www", "tmp")]
    return layer(
        *folders,
        entry("bin/busybox", Path(binary).read_bytes(), mode=0o755),
        *(entry(f"bin/{name}", type=tarfile.SYMTYPE, linkname="busybox") for name in applets),
        entry("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nweb:x:1001:1002:web:/www:/bin/sh\n"),
        entry("etc/group", b"root:x:0:\nweb:x:1002:\nextra:x:1003:web\n"),
    )


def page_layer() -> bytes:
    """What the web server serves."""
    return layer(entry("www/index.html", PAGE))


def zstd(content: bytes, *, window_log: int | None = None) -> bytes:
    """One Zstandard frame. With `window_log`, it needs a window of that power of two."""
    if window_log is None:
        return library.compress(content)
    # The size is not known when the frame begins, so that the frame names the window.
    compressor = library.ZstdCompressor(options={library.CompressionParameter.window_log: window_log})
    return compressor.compress(content) + compressor.flush()


class Registry:
    """A running peer registry; `address` is `host:port`."""

    def __init__(self, address: str, folder: Path, ca: Path) -> None:
        self.address = address
        self.ca = ca
        self._folder = folder
        self._certificates = folder / "certs"
        self._certificates.mkdir()
        shutil.copy(ca, self._certificates / "ca.crt")

    def push(self, name: str, layers: Iterable[bytes], **settings: Any) -> None:
        """Push an image `repository:tag` of these layers; `settings` are those of the image's `config`."""
        layout = self._folder / f"layout-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        write_layout(layout, list(layers), settings)
        subprocess.run(
            [
                *("skopeo", "copy", "--quiet", "--dest-creds", f"{USERNAME}:{PASSWORD}"),
                *("--dest-cert-dir", str(self._certificates), f"oci:{layout}:it", f"docker://{self.address}/{name}"),
            ],
            check=True,
            capture_output=True,
        )


@contextlib.contextmanager
def peer_registry(config: Config, folder: Path, *, auth: str | None = None) -> Iterator[Registry]:
    """Debian's registry where the installation expects its own, with the installation's certificate of it."""
    address = config.addresses["registry"]
    folder.mkdir(parents=True)
    (folder / "htpasswd").write_text(_HTPASSWD)
    certificate, key = config.certificate_files("registry")
    settings = folder / "config.yml"
    settings.write_text(
        json.dumps(  # JSON is YAML
            {
                "version": "0.1",
                "log": {"level": "error"},
                "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                "http": {
                    "addr": f"{address.host}:{address.port}",
                    "tls": {"certificate": str(certificate), "key": str(key)},
                },
                "auth": json.loads(auth)
                if auth
                else {"htpasswd": {"realm": "peer", "path": str(folder / "htpasswd")}},
            }
        )
    )
    binary = shutil.which("docker-registry")
    assert binary is not None, "these tests need Debian's docker-registry"
    process = subprocess.Popen([binary, "serve", str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(address.host, address.port, process)
        yield Registry(f"{address.host}:{address.port}", folder, config.ca_file)
    finally:
        process.terminate()
        process.wait()


def write_layout(folder: Path, layers: list[bytes], settings: dict[str, Any]) -> None:
    """An OCI image layout (Image Specification 1.1) of one image."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    packed = [blob(gzip.compress(item, 1, mtime=0), "layer.v1.tar+gzip") for item in layers]
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], **settings},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(item).hexdigest()}" for item in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(configuration).encode(), "config.v1+json"),
        "layers": packed,
    }
    described = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    described["annotations"] = {"org.opencontainers.image.ref.name": "it"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def wait_for_port(host: str, port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        assert process.poll() is None, "the registry did not start"
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
    raise AssertionError("the registry does not answer")
