"""The `cumulet` command: one thin module a verb group, over `up` and the public protocols."""

from cumulet.cli.app import main

__all__ = ["main"]
