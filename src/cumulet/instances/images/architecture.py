"""The architecture of this machine, as images name it (GOARCH)."""

from __future__ import annotations

import platform

_KNOWN = {"x86_64": "amd64", "aarch64": "arm64"}

#: What an image index has for this machine.
GOARCH = _KNOWN.get(platform.machine(), platform.machine())
