"""The published schemas of the built-in kinds, and the rules that upstream's code adds to them.

The input is an object and the name of its kind. Pruning, defaults and the preparation for create and update change the
object in place. Validation returns causes, and warnings are texts. This folder does not depend on storage, requests or
custom kinds.
"""

from cumulet.kube.schema.defaults import set_defaults
from cumulet.kube.schema.definitions import Definition, definition
from cumulet.kube.schema.label_selectors import selects
from cumulet.kube.schema.prune import prune
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
