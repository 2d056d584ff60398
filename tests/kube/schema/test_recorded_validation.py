"""Responses of a Kubernetes 1.36.2 API server to maximal and changed objects, compared with ours (dry runs).

`data/validation.json` has the objects, changes of one field each, and the responses. A rejection has its message or its
causes, and an accepted object is complete. Values that a server generates are replaced as in `test_recorded_cases`.
"""

from __future__ import annotations

import copy
import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.kube.conftest import Server
from tests.kube.test_recorded_cases import normal

_DATA = json.loads((Path(__file__).parents[1] / "data" / "validation.json").read_text())
BASES: dict[str, Any] = _DATA["bases"]
CASES = {of: list(cases) for of, cases in groupby(_DATA["cases"], key=lambda case: case["of"])}
_UID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_TIME = r"20\d\d-\d\d-\d\d([T ])\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 UTC)?"


def changed(body: Any, path: list[Any], *value: Any) -> Any:
    """Return an object with one field set or removed."""
    found = at = copy.deepcopy(body)
    for key in path[:-1]:
        at = at[key]
    if value:
        at[path[-1]] = value[0]
    else:
        del at[path[-1]]
    return found


def plain(text: str) -> str:
    """Return a text without generated values."""
    text = re.sub(r"kube-api-access-[a-z0-9]{5}", "kube-api-access-<x>", text)
    text = re.sub(r"\bgen-[a-z0-9]{5}\b", "gen-<x>", text)
    return re.sub(_TIME, "<time>", re.sub(_UID, "<uid>", text))


def composed(causes: list[list[str]]) -> str:
    """Return the message that lists the causes."""
    texts = list(dict.fromkeys(f"{field}: {message}" for field, _, message in causes))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


@pytest.mark.parametrize("name", BASES)
def test_recorded_validation(server: Server, name: str) -> None:
    base = BASES[name]
    differing = []
    for case in CASES.get(name, []):
        body = changed(base["body"], *case["change"])
        answer = server.call("POST", base["path"] + "?dryRun=All", body)
        expected: dict[str, Any] = {"status": case["status"]}
        found: dict[str, Any] = {"status": answer.status}
        if "causes" in case:
            expected["causes"] = case["causes"]
            causes = (answer.body.get("details") or {}).get("causes") or []
            found["causes"] = [[item["field"], item["reason"], plain(item["message"])] for item in causes]
            expected["message"] = case.get("message") or composed(case["causes"])
            message = plain(answer.body["message"])
            found["message"] = message if "message" in case else message.partition(" is invalid: ")[2]
        elif "message" in case:
            expected["message"], found["message"] = case["message"], plain(answer.body["message"])
        if found != expected:
            differing.append((case["change"], found, expected))
    assert not differing


@pytest.mark.parametrize("name", [name for name, base in BASES.items() if "answer" in base])
def test_recorded_defaults(server: Server, name: str) -> None:
    base = BASES[name]
    answer = server.call("POST", base["path"] + "?dryRun=All", base["body"])
    assert answer.status == 201
    answer.body["metadata"].pop("managedFields", None)
    assert without_times(answer.body) == without_times(base["answer"])


def without_times(value: Any) -> Any:
    """Return an object as recorded."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in normal(value).items() if item not in ([], "<finalizers>")}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return plain(value) if isinstance(value, str) else value
