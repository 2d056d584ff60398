"""The subset of kubectl's JSONPath in printer columns: fields, indexes, `[*]` and filters by equality or inequality."""

from __future__ import annotations

import json
import re

from cumulet.kube.apimachinery.json_types import Json

_STEP = re.compile(
    r"""\.(?P<field>(?:[\w-]|\\.)+) | \[(?P<index>-?[0-9]{1,9})\] | \[(?P<quote>['"])(?P<quoted>[^'"]*)(?P=quote)\]
    | (?P<all>\[\*\]|\.\*) | \[\?\(\s*@\.(?P<key>[\w./-]+)\s*(?P<operator>==|!=)\s*
      (?:(?P<mark>["'])(?P<text>[^"']*)(?P=mark) | (?P<plain>true|false|-?\d{1,18}))\s*\)\]""",
    re.VERBOSE | re.ASCII,
)


class JsonPathError(Exception):
    """The path is invalid or not supported."""


class JsonPath:
    """A parsed path. Raises `JsonPathError`."""

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

    def find(self, value: Json) -> list[Json]:
        """Return the values at the path, without nulls."""
        found = [value]
        for step in self._steps:
            found = [item for one in found for item in _follow(one, step)]
        return [item for item in found if item is not None]


def _follow(value: Json, step: re.Match[str]) -> list[Json]:
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
    wanted = json.loads(step["plain"]) if step["plain"] else step["text"]
    there = [item for item in value if isinstance(item, dict) and step["key"] in item]
    same = [(item, type(item[step["key"]]) is type(wanted) and item[step["key"]] == wanted) for item in there]
    return [item for item, is_same in same if is_same == (step["operator"] == "==")]
