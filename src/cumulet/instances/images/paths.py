"""The paths of untrusted layers, which stay within the root.

A path is text beneath the root, without a leading slash; the root's own is empty.
"""

from __future__ import annotations

from collections import deque

from cumulet.instances.images.budget import Budget, LayerError

#: Nested folders, because a tree may be removed by recursion; and links on the way to a file.
DEPTH, _LINKS = 255, 40


class PlaceError(LayerError):
    """An entry cannot be where it is, with what else is in the root."""


class Walk:
    """The steps of a path, in which the targets of links take the place of the links."""

    def __init__(self, parts: list[str], budget: Budget) -> None:
        self.done: list[str] = []
        self._left = deque(parts)
        self._budget = budget
        self._links = 0
        budget.add_steps(len(parts))

    def next(self) -> str | None:
        """Return the path up to the next step, or `None` at the end."""
        while self._left and self._left[0] == "..":
            self._left.popleft()
            del self.done[-1:]
        return "/".join([*self.done, self._left[0]]) if self._left else None

    def go_on(self, link: str | None) -> None:
        """Take the step; `link` is the target if a link is there. Raises `LayerError`."""
        step = self._left.popleft()
        if link is None:
            self.done.append(step)
            return
        parts = [part for part in link.split("/") if part not in ("", ".")]
        self._links += 1
        self._budget.add_steps(len(parts))
        if self._links > _LINKS or len(self.done) + len(parts) + len(self._left) > DEPTH:
            raise PlaceError(f"the layer writes through too many links: {step[:200]!r}")
        if link.startswith("/"):
            self.done.clear()
        self._left.extendleft(reversed(parts))


def split(path: str) -> list[str]:
    """Return the steps of a path beneath the root. Raises `LayerError`."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                raise LayerError(f"the layer has a path outside its root: {path[:200]!r}")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if len(parts) > DEPTH:
        raise LayerError(f"the layer has folders more than {DEPTH} deep")
    return parts


def above(path: str) -> str:
    """Return the path of the folder of a path."""
    return path.rpartition("/")[0]


def last(path: str) -> str:
    """Return the last step of a path."""
    return path.rpartition("/")[2]


def join(folder: str, name: str) -> str:
    """Return the path of a name in a folder."""
    return f"{folder}/{name}" if folder else name
