"""The architecture of this machine, as images name it (GOARCH)."""

from __future__ import annotations

import platform

_KNOWN = {"x86_64": "amd64", "aarch64": "arm64"}

#: This machine's architecture in an image index.
GOARCH = _KNOWN.get(platform.machine(), platform.machine())
