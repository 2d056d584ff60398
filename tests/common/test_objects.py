"""The generated types of objects equal what their generator makes of the published schemas."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_SCRIPT = Path(__file__).parents[2] / "scripts" / "make_objects.py"


def test_the_module_is_what_its_generator_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_objects", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = generator
    try:
        spec.loader.exec_module(generator)
        assert generator.TARGET.read_text() == generator.source(), "run scripts/make_objects.py"
    finally:
        del sys.modules[spec.name]
