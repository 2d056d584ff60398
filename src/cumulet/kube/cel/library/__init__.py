"""The functions of expressions: those of the language, and those that Kubernetes adds (`k8s.io/apiserver/pkg/cel`)."""

from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.library import (
    authorizer,
    formats,
    lists,
    network,
    optionals,
    patches,
    quantities,
    standard,
    strings,
    versions,
)

#: What every expression has.
BASE = Library(
    standard.LIBRARY,
    optionals.LIBRARY,
    strings.LIBRARY,
    lists.LIBRARY,
    network.LIBRARY,
    quantities.LIBRARY,
    versions.LIBRARY,
    formats.LIBRARY,
    authorizer.LIBRARY,
)
#: What expressions that change objects have beside that.
MUTATING = Library(BASE, patches.LIBRARY)
