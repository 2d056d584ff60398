"""What the published schemas say of each kind: which fields there are, of what type, how lists merge, what is asked."""

from cumulet.kube.schema.defaults import set_defaults
from cumulet.kube.schema.definitions import Definition, definition
from cumulet.kube.schema.prune import prune
from cumulet.kube.schema.selecting import selects
from cumulet.kube.schema.strategy import label_after_name, prepare_for_create, prepare_for_update
from cumulet.kube.schema.validation import validate
from cumulet.kube.schema.warnings import warnings

__all__ = [
    "Definition",
    "definition",
    "label_after_name",
    "prepare_for_create",
    "prepare_for_update",
    "prune",
    "selects",
    "set_defaults",
    "validate",
    "warnings",
]
