"""The part of kubectl's JSONPath that printer columns use: fields, indexes, `[*]` and filters by equality."""

from __future__ import annotations

import re
from typing import Any

_STEP = re.compile(
    r"""\.(?P<field>(?:[\w-]|\\.)+) | \[(?P<index>-?\d{1,9})\] | \[(?P<quote>['"])(?P<quoted>[^'"]*)(?P=quote)\]
    | (?P<all>\[\*\]|\.\*) | \[\?\(\s*@\.(?P<key>[\w./-]+)\s*==\s*(?P<mark>["'])(?P<value>[^"']*)(?P=mark)\s*\)\]""",
    re.VERBOSE,
)


class JsonPathError(Exception):
    """The path is not one that is known."""


class JsonPath:
    """A path, read once. Raises `JsonPathError`."""

    def __init__(self, text: str) -> None:
        self._steps: list[re.Match[str]] = []
        rest = text.strip().removeprefix("{").removesuffix("}").removeprefix("$")
        if rest and rest[0] not in ".[":
            rest = f".{rest}"
        position = 0
        while position < len(rest):
            step = _STEP.match(rest, position)
            if step is None:
                raise JsonPathError(f"is an invalid path: {text!r}")
            self._steps.append(step)
            position = step.end()

    def find(self, value: Any) -> list[Any]:
        """What the path leads to, without nulls."""
        found = [value]
        for step in self._steps:
            found = [item for one in found for item in _follow(one, step)]
        return [item for item in found if item is not None]


def _follow(value: Any, step: re.Match[str]) -> list[Any]:
    if (name := step["field"] or step["quoted"]) is not None:
        name = name.replace("\\", "")
        return [value[name]] if isinstance(value, dict) and name in value else []
    if step["all"]:
        return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if not isinstance(value, list):
        return []
    if step["index"]:
        index = int(step["index"])
        return [value[index]] if -len(value) <= index < len(value) else []
    return [item for item in value if isinstance(item, dict) and item.get(step["key"]) == step["value"]]
