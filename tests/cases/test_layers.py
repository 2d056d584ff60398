"""Images as builders make them: many layers, layers that depend on those below, and every compression."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from pathlib import Path

from tests.cases.path import LOGIN_SERVER, ThePath, pod
from tests.instances.images import busybox_layer, entry, layer, write_layout, zstd

_APPLETS = ("stat", "touch", "ls", "cat", "readlink", "rm", "df", "mkdir")


def base() -> bytes:
    """What the containers run, beside `busybox_layer`."""
    return layer(
        *(entry(f"bin/{name}", type=tarfile.SYMTYPE, linkname="busybox") for name in _APPLETS),
        entry("bin/capable", b"#!/bin/sh\n", mode=0o755),
    )


def folder(name: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def link(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=to)


def run(path: ThePath, name: str, layers: list[bytes], script: str, **settings: object) -> None:
    """Push an image, and apply a pod that runs a script in it."""
    image = path.push(f"{name}:1", [busybox_layer(), base(), *layers], **settings)
    path.apply(pod(name, [{"name": "main", "image": image, "command": ["sh", "-c", script]}], restartPolicy="Never"))


def test_layers_are_applied_to_what_is_below_them(path: ThePath) -> None:
    empty = layer()
    many = [empty, *(layer(entry(f"f{number}", b"%d\n" % number)) for number in range(1, 124)), empty]
    run(path, "many", many, "cat /f1 /f123")
    first = layer(
        *(folder("first"), entry("first/old"), folder("last"), entry("last/old")),
        *(folder("usr"), folder("usr/lib"), link("lib", "usr/lib"), link("sbin", "bin")),
        *(folder("to-link"), folder("to-file"), link("to-link", "to-file")),
        entry("one", b"linked\n", mode=0o4755),
    )
    second = layer(
        *(
            entry(".wh.first"),
            folder("first"),
            entry("first/new"),
            folder("last"),
            entry("last/new"),
            entry(".wh.last"),
        ),
        *(folder("new"), entry("new/.wh.x"), entry("new/y")),
        *(folder("own"), folder("own/lib"), link("through", "own/lib"), entry("through/x", b"through\n")),
        *(entry("lib/x", b"below\n"), entry("sbin/y", b"#!/bin/sh\necho sbin\n", mode=0o755)),
        *(entry("to-file", b"file\n"), entry("two", type=tarfile.LNKTYPE, linkname="one", mode=0o4755)),
    )
    script = (
        "ls /first /last; ls -l /new; cat /own/lib/x /usr/lib/x /to-file /two; /bin/y; readlink /lib; readlink /to-link; "
        "stat -c %a /two"
    )
    run(path, "below", [first, second], script)
    accounts = layer(entry("etc/real", b"app:x:1000:1001::/:/bin/sh\n"), link("etc/passwd", "/etc/real"))
    srv = layer(folder("srv", 0o2775, uid=1000, gid=1000), entry("srv/gone"))
    run(
        path,
        "parents",
        [accounts, srv, layer(entry("srv/.wh.gone")), layer(entry("srv/app.conf"))],
        "id; pwd; touch /srv/t && stat -c '%u %g %a' /srv; ls /srv",
        User="app:extra",
        WorkingDir="/made/here",
    )
    assert path.output("many") == "1\n123\n"
    lines = path.output("below").splitlines()
    assert lines[:5] == ["/first:", "new", "", "/last:", "new"]
    assert [line.split()[-1] for line in lines[5:7]] == ["0", "y"], "a whiteout of nothing is no file"
    assert lines[7:] == ["through", "below", "file", "linked", "sbin", "usr/lib", "to-file", "4755"]
    account = "uid=1000(app) gid=1003(extra) groups=1003(extra)"
    assert path.output("parents").splitlines() == [account, "/made/here", "1000 1000 2775", "app.conf", "t"]


def test_layers_have_any_compression(path: ThePath, tmp_path: Path) -> None:
    """zstd, as several frames too; no compression; and a media type that is not the content's."""
    content = busybox_layer()
    skipped = b"\x5a\x2a\x4d\x18\x03\0\0\0abc"
    packed = {
        "zstd": (zstd(content), "tar+zstd"),
        "frames": (skipped + zstd(content[:100_000]) + zstd(content[100_000:]) + skipped, "tar+zstd"),
        "plain": (content, "tar"),
        "wrong": (zstd(content), "tar+gzip"),
        "members": (gzip.compress(content[:1000]) + gzip.compress(content[1000:]), "tar+gzip"),
    }
    pods = []
    for name, (raw, kind) in packed.items():
        layout = tmp_path / name
        write_layout(layout, [content], {})
        index = json.loads((layout / "index.json").read_text())
        blobs = layout / "blobs/sha256"
        manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
        digest = hashlib.sha256(raw).hexdigest()
        (blobs / digest).write_bytes(raw)
        media_type = f"application/vnd.oci.image.layer.v1.{kind}"
        manifest["layers"] = [{"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(raw)}]
        document = json.dumps(manifest).encode()
        described = index["manifests"][0] | {
            "digest": f"sha256:{hashlib.sha256(document).hexdigest()}",
            "size": len(document),
        }
        (blobs / described["digest"][7:]).write_bytes(document)
        (layout / "index.json").write_text(json.dumps(index | {"manifests": [described]}))
        path.push_layout(layout, f"packed-{name}:1", "--preserve-digests")
        image = f"{LOGIN_SERVER}/packed-{name}:1"
        pods.append(
            pod(f"packed-{name}", [{"name": "main", "image": image, "command": ["true"]}], restartPolicy="Never")
        )
    path.apply(*pods)
    for name in packed:
        assert path.output(f"packed-{name}") == ""


def test_volumes_and_files_of_an_image(path: ThePath) -> None:
    """`VOLUME`, with and without content; device nodes are left out and named; capabilities of files work."""
    files = layer(
        folder("data", 0o750, uid=1001, gid=1002),
        entry("data/kept", b"kept\n", uid=1001, gid=1002),
        folder("run"),
        link("var-run", "/run"),
        entry("lost/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    )
    script = (
        "stat -c '%u %g %a' /data /new; cat /data/kept; touch /data/x /new/x /var-run/link/x && echo wrote; "
        "ls /run/link; touch /x 2>/dev/null || echo read-only"
    )
    image = path.push(
        "volumes:1",
        [busybox_layer(), base(), files],
        Volumes={"/data": {}, "/new/": {}, "/var-run/link": {}, "/mine": {}},
    )
    main = {
        "name": "main",
        "image": image,
        "command": ["sh", "-c", f"{script}; df /mine | cat"],
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "mine", "mountPath": "/mine"}],
    }
    mine = {"name": "mine", "emptyDir": {"medium": "Memory"}}
    path.apply(pod("image-volumes", [main], restartPolicy="Never", volumes=[mine]))
    lines = path.output("image-volumes").splitlines()
    assert lines[:6] == ["1001 1002 750", "0 0 755", "kept", "wrote", "x", "read-only"]
    assert lines[-1].split()[0] == "tmpfs"
    assert "Device nodes of the image are left out: 1, such as /lost/null." in path.events("image-volumes", "Pulled")
