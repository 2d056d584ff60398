"""Expressions of the Common Expression Language, with the functions that Kubernetes adds (`k8s.io/apiserver/pkg/cel`).

Optional fields (`a.?b`), macros of two variables, `cel.bind`, named formats and semantic versions are not there: an
expression that uses them is refused when it is written.
"""

from cumulet.kube.cel.errors import CelError
from cumulet.kube.cel.expressions import check, evaluate, message

__all__ = ["CelError", "check", "evaluate", "message"]
