"""The Common Expression Language, with the functions that Kubernetes adds (`k8s.io/apiserver/pkg/cel`).

An expression and its variables come in; a plain value or a `CelError` goes out. Optional fields (`a.?b`), macros of two
variables, `cel.bind`, named formats and semantic versions are not supported: an expression that uses them is refused
when it is written.
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
