"""The served resources at any time: the built-in ones, and those of custom resource definitions."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.kube.catalog import custom_definitions
from cumulet.kube.catalog.resources import RESOURCES, Row
from cumulet.kube.store import Store


class Catalog:
    """Finds rows by their path. Follows the definitions in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.rows: tuple[Row, ...] = ()
        #: The rows of each definition, with their revision.
        self._known: dict[str, tuple[int, list[Row]]] = {}
        #: Grows with each change, to invalidate what is derived from the rows.
        self.generation = 0
        self._by_path: dict[tuple[str, str, str], Row] = {}
        #: Returns whether an aggregated server serves a version of a group.
        self.is_remote: Callable[[str, str], bool] = lambda group, version: False
        self.refresh()
        store.on_change(custom_definitions.KEY, self.refresh)

    def refresh(self) -> None:
        """Read the definitions again."""
        known, self._known = self._known, {}
        rows_of_definitions: list[Row] = []
        for stored in self._store.list(custom_definitions.KEY):
            before = known.get(stored.name)
            # Only changed definitions are read.
            rows = before[1] if before and before[0] == stored.revision else custom_definitions.rows_of(stored.load())
            self._known[stored.name] = stored.revision, rows
            rows_of_definitions += rows
        self.rows = (*RESOURCES, *rows_of_definitions)
        self._by_path = {(row.group, row.version, row.plural): row for row in reversed(self.rows)}
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Row | None:
        """Return the resource of a path, or `None`."""
        return self._by_path.get((group, version, plural))
