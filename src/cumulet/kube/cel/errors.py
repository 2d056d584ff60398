"""What goes wrong with expressions."""


class CelError(Exception):
    """An expression cannot be read, or has no value."""


class CompileError(CelError):
    """An expression cannot be read; the text is what the compiler says."""


class CostLimitError(CelError):
    """One evaluation costs more than it may."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


class OutOfBudgetError(CelError):
    """The evaluations for a request together cost more than they may."""

    def __init__(self, what: str = "validation failed due to running out of cost budget") -> None:
        super().__init__(f"{what}, no further validation rules will be run")
