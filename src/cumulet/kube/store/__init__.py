"""The storage of objects: durable in one SQL file, read and watched from memory.

The contract, as `tests/kube/store/test_store.py` holds it:

- There is one order of all changes of the cluster; each change gets the next `revision`, which is the object's
  `resourceVersion`. Whoever reads or watches sees changes in that order and never one that is not on disk.
- `create`, `update` and `delete` return when the change is on disk (a power cut after that loses nothing). A writer
  builds upon the newest change of an object, also where that is still on its way to disk; of two that build upon one
  version, one gets `ConflictError`.
- `get` and `list` answer at once, with what is on disk; `list` also as of a revision that the history still has.
- `watch` hands every later change of a resource to a receiver, in order, and returns those since a revision. Where the
  history no longer has them, as after a start, it raises `GoneError`: the client lists anew.
- History is bounded in number and bytes, and `compact` takes out what has had its time. The file keeps the present
  state only: updates do not make it grow.

Whole objects come in as JSON; `Stored` objects and `Event`s go out. Nothing here knows what a kind is.
"""

from cumulet.kube.store.store import ConflictError, GoneError, Store
from cumulet.kube.store.stored import Event, Stored

__all__ = ["ConflictError", "Event", "GoneError", "Store", "Stored"]
