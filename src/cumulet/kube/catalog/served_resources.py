"""All that is served at a moment: the published resources and the custom ones that are defined."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.kube.catalog import custom_definitions
from cumulet.kube.catalog.resources import RESOURCES, Row
from cumulet.kube.store import Store


class Catalog:
    """Rows by where they are found. Follows the definitions in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.rows: tuple[Row, ...] = ()
        #: The rows of each definition, with the revision that they are of.
        self._known: dict[str, tuple[int, list[Row]]] = {}
        #: Grows with each change, for what is derived from the rows and kept.
        self.generation = 0
        self._by_path: dict[tuple[str, str, str], Row] = {}
        #: Whether another server serves a version of a group.
        self.is_remote: Callable[[str, str], bool] = lambda group, version: False
        self.refresh()
        store.on_change(custom_definitions.KEY, self.refresh)

    def refresh(self) -> None:
        """Read the definitions anew."""
        known, self._known = self._known, {}
        found: list[Row] = []
        for stored in self._store.list(custom_definitions.KEY):
            before = known.get(stored.name)
            # Only what changed is read.
            rows = before[1] if before and before[0] == stored.revision else custom_definitions.rows_of(stored.load())
            self._known[stored.name] = stored.revision, rows
            found += rows
        self.rows = (*RESOURCES, *found)
        self._by_path = {(row.group, row.version, row.plural): row for row in reversed(self.rows)}
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Row | None:
        """The resource of a path."""
        return self._by_path.get((group, version, plural))
