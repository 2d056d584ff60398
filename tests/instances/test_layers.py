"""Layers are applied as the specification says and as buildah does, and each image has what is below its own layers."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from cumulet.common import digests
from cumulet.instances.images.budget import LayerError
from cumulet.instances.images.layers import Known, Layers
from cumulet.instances.sandbox import overlay
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.mounts import unmount
from tests.instances.images import entry, layer
from tests.instances.random_layers import random_image
from tests.instances.trees import Cache, File, buildah_mounted, tree


def folder(name: str, mode: int = 0o755, uid: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode, uid=uid)


def link(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=to)


def hard(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=to)


def files(cache: Cache, *layers: bytes) -> dict[str, File]:
    """The files of an image of these layers."""
    with cache.mounted(layers) as root:
        return tree(root)


@pytest.mark.parametrize("seed", [0, 4, 13, 42, 265, 271, 314, 517])
def test_random_layers_are_applied_one_after_the_other(tmp_path: Path, seed: int) -> None:
    layers, expected = random_image(seed, layers=6, entries=12)
    assert files(Cache(tmp_path), *layers) == expected


def test_random_layers_are_applied_as_by_buildah(tmp_path: Path) -> None:
    layers, expected = random_image(1, layers=8, entries=15, careful=True)
    mine = files(Cache(tmp_path), *layers)
    with buildah_mounted(tmp_path, layers) as root:
        assert mine == tree(root) == expected


def test_a_layer_of_two_images_has_what_is_below_it_in_each(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    top = layer(entry("lib/x", b"x"), entry("srv/y"), entry("srv/.wh.gone"))
    merged = layer(
        folder("usr"), folder("usr/lib"), link("lib", "usr/lib"), folder("srv", 0o1777, 7), entry("srv/gone")
    )
    split = layer(folder("lib", 0o700), folder("srv", 0o2775))
    first, second, alone = files(cache, merged, top), files(cache, split, top), files(cache, top)
    assert {path for path, file in first.items() if file.content == b"x"} == {"usr/lib/x"}
    assert (first["srv"].mode, first["srv"].uid) == ("drwxrwxrwt", 7)
    assert {path for path, file in second.items() if file.content == b"x"} == {"lib/x"}
    assert (second["lib"].mode, second["srv"].mode) == ("drwx------", "drwxrwsr-x")
    assert (alone["lib"].mode, alone["srv"].mode) == ("drwxr-xr-x", "drwxr-xr-x")
    assert [set(found) & {"srv/gone", "srv/.wh.gone"} for found in (first, second, alone)] == [set()] * 3
    # The second time nothing is unpacked.
    cache.again.clear()
    assert files(cache, merged, top) == first
    assert cache.again == []


def test_a_link_to_a_file_below_leaves_that_file(tmp_path: Path) -> None:
    """Two images share the layer of the file; one has a link with another mode."""
    cache = Cache(tmp_path)
    base = layer(entry("file", b"it", mode=0o644))
    info, _ = hard("second", "file")
    info.mode = 0o4711
    linked = files(cache, base, layer((info, b"")))
    assert linked["file"].mode == linked["second"].mode == "-rws--x--x"
    assert files(cache, base)["file"].mode == "-rw-r--r--"


def test_data_of_aufs_is_no_file(tmp_path: Path) -> None:
    content = layer(
        entry(".wh..wh.aufs"), entry(".wh..wh.plnk", type=tarfile.DIRTYPE), entry(".wh..wh.plnk/1"), entry("a")
    )
    assert set(files(Cache(tmp_path), content)) == {"a"}


def test_an_opaque_root_hides_all_layers_below(tmp_path: Path) -> None:
    found = files(Cache(tmp_path), layer(entry("a")), layer(entry(".wh..wh..opq"), entry("b")), layer(entry("c")))
    assert set(found) == {"b", "c"}


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([entry("../escaped")], "a path outside its root"),
        ([entry("a/../../escaped")], "a path outside its root"),
        ([hard("copy", "/../../etc/shadow")], "a path outside its root"),
        ([hard("copy", "missing")], "which does not exist"),
        ([link("loop", "loop"), entry("loop/x")], "too many links"),
        ([hard("same", "./same"), entry("same")], "which does not exist"),
        ([entry("same"), hard("same", "./same")], "to itself"),
        ([folder("one"), hard("two", "one")], "cannot be unpacked"),
    ],
)
def test_what_cannot_be_applied_is_refused(
    tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], reason: str
) -> None:
    with pytest.raises(LayerError, match=reason):
        files(Cache(tmp_path), layer(*entries))


def test_links_lead_within_the_root(tmp_path: Path) -> None:
    """Targets that climb above the root end at the root, as in a container."""
    outside = tmp_path / "outside"
    outside.mkdir()
    up = "../" * 40
    first = layer(link("absolute", str(outside)), link("relative", f"{up}{str(outside).lstrip('/')}"), link("up", up))
    second = layer(entry("absolute/one"), entry("relative/two"), entry("up/three"), entry("up/tmp/.wh.x"))
    found = files(Cache(tmp_path), first, second)
    place = str(outside).lstrip("/")
    assert {f"{place}/one", f"{place}/two", "three"} <= set(found)
    assert list(outside.iterdir()) == []


def test_the_most_layers_of_an_image_are_mounted(tmp_path: Path) -> None:
    """127 layers, each of which has a patch, on this kernel; and all that fit at once on an older one."""
    cache = Cache(tmp_path)
    base = layer(folder("srv", 0o1777))
    layers = [base, *(layer(entry(f"srv/{number}", b"%d" % number)) for number in range(126))]
    stack = cache.stack(layers)
    assert len(stack) == 2 * 127 - 1
    found = files(cache, *layers)
    assert found["srv"].mode == "drwxrwxrwt"
    assert len(found) == 127
    for part in ("upper", "work", "root"):
        (tmp_path / part).mkdir()
    names = [str(path) for path in stack]
    with pytest.raises(SandboxError, match="this kernel cannot mount the 253 folders"):
        overlay.mount_overlay_at_once(names, str(tmp_path / "upper"), str(tmp_path / "work"), tmp_path / "root")
    few = [str(path) for path in reversed(cache.stack([base, layers[1]]))]
    overlay.mount_overlay_at_once(few, str(tmp_path / "upper"), str(tmp_path / "work"), tmp_path / "root")
    try:
        assert set(tree(tmp_path / "root")) == {"srv", "srv/0"}
    finally:
        unmount(tmp_path / "root")


def test_a_layer_that_a_power_cut_may_have_damaged_is_not_used(tmp_path: Path) -> None:
    """Until the disk has a layer, its record is for the time until the machine starts again."""
    content = [layer(entry("one")), layer(entry("two"))]
    first, second = map(digests.of, content)
    cache = Cache(tmp_path)
    cache.stack(content[:1])
    cache.layers.synchronize()
    cache.stack(content)
    records = {file.name: json.loads(file.read_bytes()) for file in (tmp_path / "cache").glob("*records/*.json")}
    assert sorted(bool(record["boot"]) for record in records.values()) == [False, True]
    assert Layers(tmp_path / "cache").find(second) is not None, "a start of the room only"
    for file in (tmp_path / "cache").glob("*records/*.json"):
        record = json.loads(file.read_bytes())
        if record["boot"]:
            file.write_text(json.dumps(record | {"boot": "an earlier one"}))
    (tmp_path / "cache/changesets/without-a-record").mkdir()
    after = Layers(tmp_path / "cache")
    assert (after.find(first) is None, after.find(second) is None) == (False, True)
    assert len(list((tmp_path / "cache/changesets").iterdir())) == 1
    with after.work_on_thread() as work:
        (work / "file").touch()
        after.add(second, Known(second, 1), work)
    assert (after.path(second) / "file").exists()
