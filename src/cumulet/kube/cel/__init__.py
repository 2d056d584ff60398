"""Expressions of the Common Expression Language, with the functions that Kubernetes adds (`k8s.io/apiserver/pkg/cel`).

An expression is read and checked against the types of its variables, which say what it can cost at most. It is
evaluated within a budget: each step is charged before it is done, as upstream charges it, and so is what is within a
macro. Whoever may write an expression can thereby not hold up the server.
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
