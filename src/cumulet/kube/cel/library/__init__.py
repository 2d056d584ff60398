"""The functions of expressions: the language's own, and Kubernetes' additions (`k8s.io/apiserver/pkg/cel`)."""

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

#: The functions of every expression.
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
#: The functions of expressions that change objects.
MUTATING = Library(BASE, patches.LIBRARY)
