"""The container groups of a node as the provider last showed them, by their pods' uids and by the names of these pods."""

from __future__ import annotations

from collections import defaultdict

from cumulet.node.resource import ContainerGroup

#: The namespace and the name of a pod.
Key = tuple[str, str]


class KnownGroups:
    """A pod that replaces another of its name has a uid, and a group, of its own; so a name can have several groups."""

    def __init__(self) -> None:
        self._groups: dict[str, ContainerGroup] = {}
        self._uids: defaultdict[Key, set[str]] = defaultdict(set)

    def replace(self, groups: dict[str, ContainerGroup]) -> dict[str, ContainerGroup]:
        """Know these groups and no others; return those that were known."""
        before, self._groups = self._groups, groups
        self._uids.clear()
        for uid, group in groups.items():
            self._uids[_key(group)].add(uid)
        return before

    def add(self, uid: str, group: ContainerGroup) -> None:
        """Know a group that was created, unless the provider has shown it already."""
        if uid not in self._groups:
            self._groups[uid] = group
            self._uids[_key(group)].add(uid)

    def get(self, uid: str) -> ContainerGroup | None:
        """Return the group of the pod with that uid, or `None`."""
        return self._groups.get(uid)

    def pop(self, uid: str) -> ContainerGroup | None:
        """Forget the group of a pod, and return it; `None` if there is none."""
        group = self._groups.pop(uid, None)
        if group is not None:
            self._uids[_key(group)].discard(uid)
        return group

    def named(self, key: Key) -> list[tuple[str, ContainerGroup]]:
        """Return the groups of pods of that name, with the uids of the pods."""
        return [(uid, self._groups[uid]) for uid in self._uids.get(key, ())]


def _key(group: ContainerGroup) -> Key:
    tags = group["tags"]
    return tags.get("Namespace", ""), tags.get("PodName", "")
