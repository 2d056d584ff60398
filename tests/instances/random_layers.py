"""Random layers that follow from each other, so that every builder's runtime can apply them.

`Model` applies the entries in memory, one after the other, as the specification describes it. It decides which entries can
follow, and what the tree is at the end.
"""

from __future__ import annotations

import random
import stat
import tarfile
from dataclasses import dataclass, field, replace

from tests.instances.images import entry, layer
from tests.instances.trees import File

_NAMES = ("a", "b", "c", "d")
_MODES = (0o755, 0o700, 0o1777, 0o2775, 0o711)
_TYPES = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
Part = tuple[tarfile.TarInfo, bytes]


@dataclass
class Node:
    """A file, a folder or a link. Hard links share it."""

    kind: int
    mode: int
    uid: int
    gid: int
    content: bytes = b""
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        return self.kind == stat.S_IFDIR

    def shown(self) -> File:
        """As a tree of files has it."""
        return File(stat.filemode(self.kind | self.mode), self.uid, self.gid, self.content, {})


class Model:
    """A root, and the nodes that the current layer has changed.

    When `careful`, no entry replaces what its own layer has: buildah refuses that.
    """

    def __init__(self, *, careful: bool = False) -> None:
        self.careful = careful
        self.root = Node(stat.S_IFDIR, 0o755, 0, 0)
        self._own: set[int] = set()
        self._kept: list[Node] = []  # so that no other node gets the id of a removed one

    def begin(self) -> None:
        """Begin a layer. As with overlays, a file that it changes has no other names in layers below."""
        self._own = set()
        self._separate(self.root)

    def _separate(self, folder: Node) -> None:
        for name, child in folder.children.items():
            if child.is_folder:
                self._separate(child)
            else:
                folder.children[name] = replace(child)
                self._kept.append(folder.children[name])

    def resolve(self, path: str, *, make: bool) -> tuple[Node, str] | None:
        """The folder of a path and its last name; `None` if a file or a dangling link is in the way."""
        *left, last = path.split("/")
        above: list[Node] = [self.root]
        links = 0
        while left:
            step = left.pop(0)
            if step == "..":
                above = above[:-1] or [self.root]
                continue
            found = above[-1].children.get(step)
            if found is None:
                if not make or links:
                    return None
                found = above[-1].children[step] = self._new(stat.S_IFDIR, 0o755, 0, 0)
            if found.kind == stat.S_IFLNK:
                links += 1
                if links > 10:
                    return None
                target = found.content.decode()
                left = [part for part in target.split("/") if part] + left
                above = [self.root] if target.startswith("/") else above
            elif found.is_folder:
                above.append(found)
            else:
                return None
        return above[-1], last

    def _new(self, kind: int, mode: int, uid: int, gid: int, content: bytes = b"") -> Node:
        node = Node(kind, mode, uid, gid, content)
        self._kept.append(node)
        self._own.add(id(node))
        return node

    def add(self, kind: str, path: str, mode: int, uid: int, gid: int, content: bytes) -> bool:
        """Apply an entry; return whether it can be applied."""
        source: Node | None = None
        if kind == "hard":
            at = self.resolve(content.decode(), make=False)
            source = at[0].children.get(at[1]) if at else None
            if source is None or source.kind != stat.S_IFREG:
                return False
        there = self.resolve(path, make=False)
        before = there[0].children.get(there[1]) if there else None
        if there is None and self._through_link(path):
            return False
        if kind == "hidden" and (before is None or self._has_own(before)):
            return False
        if kind == "opaque" and (there is None or any(self._has_own(child) for child in there[0].children.values())):
            return False
        if self.careful and before is not None and self._has_own(before):
            return False
        if source is not None and before is not None and self._contains(before, source):
            return False
        at = self.resolve(path, make=True)
        if at is None:
            return False
        folder, name = at
        if kind == "hidden":
            del folder.children[name]
        elif kind == "opaque":
            folder.children.clear()
        elif kind == "hard":
            assert source is not None
            source.mode, source.uid, source.gid = mode, uid, gid
            self._own.add(id(source))
            folder.children[name] = source
        elif kind == "folder" and before is not None and before.is_folder:
            before.mode, before.uid, before.gid = mode, uid, gid
            self._own.add(id(before))
        else:
            number = {"folder": stat.S_IFDIR, "link": stat.S_IFLNK, "file": stat.S_IFREG}[kind]
            folder.children[name] = self._new(number, 0o777 if kind == "link" else mode, uid, gid, content)
        return True

    def _through_link(self, path: str) -> bool:
        """Whether a link is on the way to a path; buildah makes no folders behind one."""
        steps = path.split("/")
        for count in range(1, len(steps)):
            at = self.resolve("/".join(steps[:count]), make=False)
            found = at[0].children.get(at[1]) if at else None
            if found is None:
                return at is None
            if found.kind == stat.S_IFLNK:
                return True
        return False

    def _has_own(self, node: Node) -> bool:
        return id(node) in self._own or any(self._has_own(child) for child in node.children.values())

    def _contains(self, node: Node, other: Node) -> bool:
        return node is other or any(self._contains(child, other) for child in node.children.values())

    def tree(self) -> dict[str, File]:
        """The files by their paths."""
        found: dict[str, File] = {}

        def walk(node: Node, prefix: str) -> None:
            for name, child in node.children.items():
                found[prefix + name] = child.shown()
                walk(child, f"{prefix}{name}/")

        walk(self.root, "")
        return found


def random_image(
    seed: int, *, layers: int, entries: int, careful: bool = False
) -> tuple[list[bytes], dict[str, File]]:
    """The layers of an image, and the files of its root."""
    chance = random.Random(seed)
    model, made = Model(careful=careful), []
    for _ in range(layers):
        model.begin()
        parts: list[Part] = []
        for _ in range(100 * entries):
            if (part := _random_entry(chance, model)) is not None:
                parts.append(part)
            if len(parts) == entries:
                break
        made.append(layer(*parts))
    return made, model.tree()


def _random_entry(chance: random.Random, model: Model) -> Part | None:
    kinds, weights = ("file", "folder", "link", "hard", "hidden", "opaque"), (6, 4, 2, 1, 2, 1)
    kind = chance.choices(kinds, weights)[0]
    path = _random_path(chance)
    # Programs differ in the group and mode of a folder that nobody mentions in one with a group of its own.
    mode = chance.choice(_MODES) & (0o1777 if model.careful else 0o7777)
    uid, gid = chance.choice((0, 0, 7, 1000)), chance.choice((0, 0, 8))
    content = chance.randbytes(3) if kind == "file" else b""
    if kind == "link":
        prefix = chance.choice(("", "/", "../", "../../"))
        content = (prefix + _random_path(chance)).encode()
    elif kind == "hard":
        content = _random_path(chance).encode()
    elif kind == "opaque":
        path = f"{path}/x"
    if not model.add(kind, path, mode, uid, gid, content):
        return None
    folder, _, name = path.rpartition("/")
    prefix = f"{folder}/" if folder else ""
    if kind == "hidden":
        return entry(f"{prefix}.wh.{name}")
    if kind == "opaque":
        return entry(f"{prefix}.wh..wh..opq")
    if kind == "file":
        return entry(path, content, mode=mode, uid=uid, gid=gid)
    link = content.decode() if kind in ("link", "hard") else ""
    return entry(path, type=_TYPES[kind], mode=mode, uid=uid, gid=gid, linkname=link)


def _random_path(chance: random.Random) -> str:
    return "/".join(chance.choice(_NAMES) for _ in range(chance.choice((1, 2, 2, 3))))
