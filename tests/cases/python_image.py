"""An image of this machine's Python with Microsoft's libraries, as an application's image has them."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

#: What `azure.identity` imports, in this environment's site-packages.
PACKAGES = (
    "azure/core",
    "azure/identity",
    "certifi",
    "cffi",
    "charset_normalizer",
    "cryptography",
    "idna",
    "isodate",
    "jwt",
    "msal",
    "msal_extensions",
    "requests",
    "typing_extensions.py",
    "urllib3",
)
_OMITTED = re.compile(
    r"/(__pycache__|test|tests|idlelib|ensurepip|site-packages|tkinter|turtledemo|lib2to3|pydoc_data)(/|$)|/_test|\.pyc$|\.a$"
)


def python_layers(packages: Iterable[str] = PACKAGES) -> list[bytes]:
    """The layers: the interpreter with its libraries at the place where it is here, and packages in `/site`."""
    program = Path(sys.executable).resolve()
    standard, site = Path(sysconfig.get_paths()["stdlib"]), Path(sysconfig.get_paths()["purelib"])
    chosen = [found for name in packages for found in _of_package(site, name)]
    native = [program, *standard.glob("lib-dynload/*.so"), *(path for path in chosen if ".so" in path.suffixes)]
    system = [program, *_libraries(native), *_files(standard)]
    return [
        _layer({str(path): path for path in system}, {"/usr/bin/python3": str(program)}),
        _layer({f"/site/{path.relative_to(site)}": path for path in chosen}, {}),
    ]


def _of_package(site: Path, name: str) -> Iterator[Path]:
    found = site / name
    yield from [found] if found.is_file() else _files(found)
    if name == "cffi":
        yield from site.glob("_cffi_backend*.so")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _OMITTED.search(f"/{path.relative_to(folder)}"):
            yield path


def _libraries(programs: Iterable[Path]) -> set[Path]:
    """The shared libraries that programs are linked to, the loader among them."""
    listed = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=True).stdout
    return {Path(found) for found in re.findall(r"(/\S+\.so\S*) \(0x", listed)}


def _layer(files: dict[str, Path], links: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("tmp", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            info = tarfile.TarInfo(name.lstrip("/"))
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
        for name, target in links.items():
            link = tarfile.TarInfo(name.lstrip("/"))
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return buffer.getvalue()
