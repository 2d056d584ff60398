"""What goes wrong with expressions."""


class CelError(Exception):
    """An expression cannot be read, or has no value."""
