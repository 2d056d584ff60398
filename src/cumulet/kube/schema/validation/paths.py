"""Validation of relative file paths."""

from __future__ import annotations

from cumulet.kube.schema.validation.field_errors import Causes, invalid


def no_backsteps(path: str, field: str) -> Causes:
    """Validate that a path has no `..`."""
    if ".." in path.split("/"):
        yield invalid(field, path, "must not contain '..'")


def descending(path: str, field: str) -> Causes:
    """Validate that a path is relative and has no `..`."""
    if path.startswith("/"):
        yield invalid(field, path, "must be a relative path")
    yield from no_backsteps(path, field)


def unreserved(path: str, field: str) -> Causes:
    """Validate like `descending`, and that no part begins with two dots, which kubelets reserve."""
    yield from descending(path, field)
    if path.startswith("..") and not path.startswith("../"):
        yield invalid(field, path, "must not start with '..'")
