"""The Common Expression Language, with Kubernetes' functions (`k8s.io/apiserver/pkg/cel`).

An expression is compiled once in an `Environment`. The resulting `Program` takes variables and a `Budget`, and returns a
plain value or raises `CelError`.
"""

from cumulet.kube.cel.environment import (
    PER_CALL,
    PER_CONDITIONS,
    PER_REQUEST,
    Budget,
    Environment,
    LengthyError,
    Program,
)
from cumulet.kube.cel.errors import CelError, CompileError, CostLimitError, OutOfBudgetError

__all__ = [
    "PER_CALL",
    "PER_CONDITIONS",
    "PER_REQUEST",
    "Budget",
    "CelError",
    "CompileError",
    "CostLimitError",
    "Environment",
    "LengthyError",
    "OutOfBudgetError",
    "Program",
]
