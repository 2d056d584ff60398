"""The storage of objects: durable in one SQL file, read and watched from memory.

The contract, which `tests/kube/store/test_store.py` tests:

- All changes of the cluster have one order. Each gets the next `revision`, which is the object's `resourceVersion`.
  Reads and watches see changes in that order, and only when they are on disk.
- `create`, `update` and `delete` return when the change is on disk: a power failure after that loses nothing. A writer
  starts from the newest change of an object, even if that is still on its way to disk. Of two writers that start from
  one version, one gets `ConflictError`.
- `get` and `list` return at once, from the state on disk; `list_at` from an older revision that the history still has.
- `watch` passes every later change of a resource to a receiver, in order, and returns the changes since a revision.
  Where the history no longer has them, for example after a start, it raises `GoneError`: the client must list again.
- The history is bounded in number and bytes; `compact` removes old changes. The file has the current state only:
  updates do not make it grow.

Objects come in as JSON; `Stored` objects and `Event`s go out. The store does not depend on kinds.
"""

from cumulet.kube.store.store import ConflictError, GoneError, Store
from cumulet.kube.store.stored import Event, Stored

__all__ = ["ConflictError", "Event", "GoneError", "Store", "Stored"]
