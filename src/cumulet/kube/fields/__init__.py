"""Field ownership: `metadata.managedFields`, and the merge of server-side apply.

An object before and after a write, its shape and a manager come in; the object with its new owners goes out, or a
conflict. The rules are those of structured-merge-diff v6. A writer owns the fields that it set, by update or apply.
An apply that would change another manager's field is a conflict. A field that only the applier owned, and left out
now, is removed.
"""

from cumulet.kube.fields.conformance import misfit
from cumulet.kube.fields.managers import ApplyConflictError, Manager, apply, track
from cumulet.kube.fields.shape import Shape, shape_of

__all__ = ["ApplyConflictError", "Manager", "Shape", "apply", "misfit", "shape_of", "track"]
