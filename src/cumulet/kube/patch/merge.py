"""Merge patch (RFC 7386): objects are merged, null removes, any other value replaces."""

from __future__ import annotations

from typing import Any


def merge_patch(target: object, patch: object) -> Any:
    """Return the patched `target`."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
