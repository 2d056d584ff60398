"""Paths of files that must stay below something."""

from __future__ import annotations

from cumulet.kube.schema.validation.field_errors import Causes, invalid


def no_backsteps(path: str, field: str) -> Causes:
    """What is wrong with a path that goes up."""
    if ".." in path.split("/"):
        yield invalid(field, path, "must not contain '..'")


def descending(path: str, field: str) -> Causes:
    """What is wrong with a path that must be relative, and not go up."""
    if path.startswith("/"):
        yield invalid(field, path, "must be a relative path")
    yield from no_backsteps(path, field)


def unreserved(path: str, field: str) -> Causes:
    """The same of a path that may not begin with two dots, which kubelets keep for themselves."""
    yield from descending(path, field)
    if path.startswith("..") and not path.startswith("../"):
        yield invalid(field, path, "must not start with '..'")
