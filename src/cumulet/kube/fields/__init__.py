"""Who set which field: `metadata.managedFields`, and what server-side apply makes of it.

The rules are those of structured-merge-diff v6: a writer owns what it set, by update or by apply; an apply that would
change what another owns is a conflict; what only the applier owned and no longer names is taken away.
"""

from cumulet.kube.fields.fitting import misfit
from cumulet.kube.fields.managers import ApplyConflictError, Manager, apply, track
from cumulet.kube.fields.shape import Shape, shape_of

__all__ = ["ApplyConflictError", "Manager", "Shape", "apply", "misfit", "shape_of", "track"]
