"""The JSON Patch library of mutating policies (`cel/library/jsonpatch.go`)."""

from __future__ import annotations

from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.sizes import scan, scan_cost

LIBRARY = Library()
LIBRARY.add(
    "jsonpatch.escapeKey(string) string",
    lambda key: key.replace("~", "~0").replace("/", "~1"),
    scan_cost(),
    scan(keeps=True),
)
