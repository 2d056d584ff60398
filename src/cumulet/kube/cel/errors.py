"""Errors of expressions."""


class CelError(Exception):
    """An expression cannot be compiled, or its evaluation failed."""


class CompileError(CelError):
    """An expression cannot be compiled. The text is the compiler's message."""


class CostLimitError(CelError):
    """One evaluation exceeds its cost limit."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


class OutOfBudgetError(CelError):
    """The evaluations for a request together exceed its budget."""

    def __init__(self, what: str = "validation failed due to running out of cost budget") -> None:
        super().__init__(f"{what}, no further validation rules will be run")
