"""The `cumulet` command: one thin module for each group of verbs.

Input: arguments, and the installation in the data directory. Output: what `up` and the public protocols return, on
standard output; errors on standard error. Exit codes: 0 success, 1 failure, 2 wrong usage.
"""

from cumulet.cli.app import main

__all__ = ["main"]
