"""Archives of every program that makes layers are read: their headers, numbers, names, sparse files and attributes."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from cumulet.common import digests
from cumulet.instances.images.budget import Budget, LayerError
from cumulet.instances.images.unpack import Unpacked, unpack
from tests.instances.images import entry, layer

_LIMIT = 100 * 1024 * 1024
#: A file with capabilities (capabilities(7), version 2): NET_BIND_SERVICE, effective.
_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def unpacked(folder: Path, content: bytes) -> Unpacked:
    folder.mkdir(exist_ok=True)
    return unpack(io.BytesIO(content).read, folder, digests.of(content), Budget(_LIMIT))


def header(name: bytes, size: int = 0, kind: bytes = b"0", **fields: bytes) -> bytes:
    """A header without a magic, as of Unix V7; `fields` replace bytes at `atN`."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000640\0", b"0000007\0", b"0000010\0"
    block[124:136], block[136:148], block[156:157] = b"%011o\0" % size, b"14524520000\0", kind
    for place, value in fields.items():
        start = int(place.removeprefix("at"))
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 512)


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "oldgnu", "pax"])
def test_archives_of_gnu_tar(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    long = "long-" * 17 + "name" if form in ("v7", "ustar") else "long-" * 40 + "name"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / long).write_bytes(b"content")
    os.link(source / "folder" / long, source / "linked")
    (source / "link").symlink_to(f"folder/{long}")
    (source / "old").write_bytes(b"old")
    os.utime(source / "old", ns=(5 * 10**9, 5 * 10**9))
    raw_name = b"latin-\xe9" if form != "pax" else "umlaut-\xfc".encode()
    Path(os.fsdecode(os.fsencode(source) + b"/" + raw_name)).write_bytes(b"raw")
    os.mkfifo(source / "pipe")
    command = ["tar", f"--format={form}", "--create", "--directory", str(source), "--exclude=pipe", "."]
    if form != "v7":
        command.remove("--exclude=pipe")
    content = subprocess.run(command, capture_output=True, check=True).stdout
    unpacked(tmp_path / "root", content)
    root = tmp_path / "root"
    assert (root / "folder" / long).read_bytes() == b"content"
    assert (root / "linked").samefile(root / "folder" / long)
    assert (root / "link").resolve() == root / "folder" / long
    assert (root / "old").stat().st_mtime_ns == 5 * 10**9
    assert os.fsdecode(raw_name) in {path.name for path in root.iterdir()}
    assert form == "v7" or stat.S_ISFIFO((root / "pipe").stat().st_mode)


def test_headers_of_other_programs(tmp_path: Path) -> None:
    """GNU's times where others have the prefix, star's prefix before its times, and base 256."""
    times = b"14524520001\0" + b"14524520002\0"
    content = b"".join(
        [
            header(b"v7-folder/", kind=b"\0"),
            header(b"v7-folder/file", 3, kind=b"\0") + padded(b"abc"),
            header(b"gnu-times", at257=b"ustar  \0", at345=times),
            header(b"name", at257=b"ustar\00000", at345=b"prefix"),
            header(b"star", at257=b"ustar\00000", at345=b"prefix" + b"\0" * 125 + times, at508=b"tar\0"),
            header(b"numbers", at257=b"ustar  \0", at108=b"\x80\0\0\0\0\x11\x22\x33", at136=b"\xff" * 12),
            header(b"spaces", at108=b"     7 \0", at116=b" 10\0\0\0\0\0"),
            b"\0" * 1024,
        ]
    )
    unpacked(tmp_path / "root", content)
    root = tmp_path / "root"
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == [
        *("gnu-times", "numbers", "prefix", "prefix/name", "prefix/star", "spaces"),
        *("v7-folder", "v7-folder/file"),
    ]
    assert (root / "v7-folder/file").read_bytes() == b"abc"
    status = (root / "numbers").stat()
    assert (status.st_uid, status.st_mtime) == (0x112233, -1)
    assert ((root / "spaces").stat().st_uid, (root / "spaces").stat().st_gid) == (7, 8)


@pytest.mark.parametrize("form", ["oldgnu", "gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax"])
def test_sparse_files(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for number in range(60):  # more regions than a header holds
            file.seek(number * 256 * 1024)
            file.write(b"%d" % number)
        file.truncate(20 * 1024 * 1024)
    (source / "after").write_bytes(b"after")
    options = [f"--format={form.split()[0]}", *form.split()[1:]]
    command = ["tar", "--sparse", *options, "--create", "--directory", str(source), "sparse", "after"]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(content) < 1024 * 1024
    unpacked(tmp_path / "root", content)
    made = tmp_path / "root/sparse"
    assert made.read_bytes() == (source / "sparse").read_bytes()
    assert made.stat().st_blocks * 512 < 1024 * 1024
    assert (tmp_path / "root/after").read_bytes() == b"after"
    assert [path.name for path in (tmp_path / "root").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    "numbers", ["", "0", "0,5,3,5", "9,100", "-1,5", "5,x", "0,5,99999999999999999999,1", "," * 300_000]
)
def test_a_map_that_is_none_is_refused(tmp_path: Path, numbers: str) -> None:
    info, _ = entry("sparse", b"0123456789")
    info.pax_headers = {"GNU.sparse.size": "50", "GNU.sparse.map": numbers or "x"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"0123456789"))
    with pytest.raises(LayerError):
        unpacked(tmp_path / "root", buffer.getvalue())


def test_holes_count(tmp_path: Path) -> None:
    info, _ = entry("sparse")
    info.pax_headers = {"GNU.sparse.size": str(2**60), "GNU.sparse.map": "0,0"}
    with pytest.raises(LayerError, match="unpacks to more than"):
        unpacked(tmp_path / "root", layer((info, b"")))


def test_owners_modes_attributes_and_times(tmp_path: Path) -> None:
    capable = entry("capable", b"x", mode=0o755)
    capable[0].pax_headers = {
        "SCHILY.xattr.user.key": "value",
        "SCHILY.xattr.security.capability": _CAPABILITY.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.security.selinux": "any",
        "mtime": "1.123456789",
    }
    devices = [
        entry("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("dev/sda", type=tarfile.BLKTYPE),
    ]
    above = entry("folder", type=tarfile.DIRTYPE, mode=0o1777, mtime=7)
    unpacked_ = unpacked(
        tmp_path / "root",
        layer(
            above,
            capable,
            *devices,
            entry("folder/set", mode=0o6755, uid=1, gid=2),
            entry("pipe", type=tarfile.FIFOTYPE),
        ),
    )
    root = tmp_path / "root"
    assert (unpacked_.devices, unpacked_.first_device) == (2, "dev/null")
    assert os.getxattr(root / "capable", "security.capability") == _CAPABILITY
    assert os.getxattr(root / "capable", "user.key") == b"value"
    assert set(os.listxattr(root / "capable")) == {"security.capability", "user.key"}
    assert (root / "capable").stat().st_mtime_ns == 1_123_456_789
    status = (root / "folder/set").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o6755, 1, 2)
    # What was put into the folder afterwards changes neither its mode nor its time.
    status = (root / "folder").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o1777, 7)
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    assert list((root / "dev").iterdir()) == []


@pytest.mark.parametrize("kind", [b"M", b"N", b"Z"])
def test_an_entry_of_an_unknown_type_is_named(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(LayerError, match=rf"'odd' is of the type b'{kind.decode()}'"):
        unpacked(tmp_path / "root", header(b"odd", kind=kind))
