"""What every room serves, told by the routers of the rooms themselves as they run."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from cumulet.arm.request_handler import RequestHandler
from cumulet.common.config import RoomName
from cumulet.common.room import Room
from cumulet.registry.acr import routes as acr
from cumulet.registry.distribution import routes as distribution
from tests.cloud import Cloud

_FIXED = re.compile(r"\(\?P<(\w+)>\(\?ai:((?:[^()\\]|\\.)+)\)\)")
_EVERY = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_DIGEST = "sha256:" + "0" * 64


class Route(NamedTuple):
    """A route: `canonical` has its variables in braces, `path` is one that it takes."""

    room: RoomName
    method: str
    canonical: str
    path: str


class _Told(msgspec.Struct):
    method: str
    canonical: str
    formatter: str
    pattern: str


class RecordingCloud(Cloud):
    """Rooms that write down, each in its process, what the router that they serve with holds."""

    def _run(self, name: RoomName, told: int) -> None:
        _record(self._file(name))
        super()._run(name, told)

    def _file(self, name: RoomName) -> Path:
        return self.config.data_dir / f"routes-{name}.json"

    def routes(self, name: RoomName, values: Mapping[str, str]) -> list[Route]:
        """Every route of a room, a `*` as each method; `values` are those of variables, else they are `thing`."""
        found = []
        for told in msgspec.json.decode(self._file(name).read_bytes(), type=list[_Told]):
            words = {label: re.sub(r"\\(.)", r"\1", text) for label, text in _FIXED.findall(told.pattern)}
            path = told.formatter.format_map(_Values({**values, **words}))
            for method in _EVERY if told.method == "*" else (told.method,):
                found += [Route(name, method, told.canonical, each) for each in _behind(told.canonical, path)]
        return found


class _Values(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "thing"


def _behind(canonical: str, path: str) -> list[str]:
    """The paths that a route's own table takes apart; itself where it has none."""
    if canonical == "/v2/{path}":
        parts = _examples(
            distribution._PATH,
            {
                "tags": "/v2/some/repository/tags/list",
                "manifest": "/v2/some/repository/manifests/v1",
                "referrers": f"/v2/some/repository/referrers/{_DIGEST}",
                "upload": "/v2/some/repository/blobs/uploads/3fa85f64-5717-4562-b3fc-2c963f66afa6",
                "blob": f"/v2/some/repository/blobs/{_DIGEST}",
                "": "/v2/_catalog",
            },
        )
        return [*parts, "/v2/", "/v2/some/repository/blobs/uploads/", "/v2/nothing"]
    if canonical == "/acr/v1/{path}":
        parts = _examples(
            acr._PATH,
            {
                "kind": "/acr/v1/some/repository/_tags",
                "reference": f"/acr/v1/some/repository/_manifests/{_DIGEST}",
                "": "/acr/v1/some/repository",
            },
        )
        return [*parts, "/acr/v1/_catalog", "/acr/v1/_deleted/_catalog", "/acr/v1/_deleted/some/repository/_tags"]
    return [path]


def _examples(table: re.Pattern[str], paths: dict[str, str]) -> list[str]:
    """A path for each part of a table; it fails where the table has a part that no path is for."""
    assert set(table.groupindex) - {"name"} == set(paths) - {""}
    for part, path in paths.items():
        match = table.fullmatch(path)
        assert not part or (match is not None and match[part] is not None), path
    return list(paths.values())


def of_the_door(subscription: str) -> Iterator[str]:
    """The paths that the front door answers itself, read from its own `match`."""
    yield from (
        "/tenants",
        "/subscriptions",
        f"{subscription}/providers",
        f"{subscription}/providers/Microsoft.Resources",
    )
    tree = ast.parse(textwrap.dedent(inspect.getsource(RequestHandler._subscription)))
    cases = [node.pattern for node in ast.walk(tree) if isinstance(node, ast.match_case)]
    assert len(cases) > 4, "the front door's own paths are no longer in a match of RequestHandler._subscription"
    for case in cases:
        assert isinstance(case, ast.MatchSequence)
        words = [
            pattern.value.value if isinstance(pattern, ast.MatchValue) and isinstance(pattern.value, ast.Constant) else "thing"
            for pattern in case.patterns
        ]  # fmt: skip
        yield "/".join([subscription, *map(str, words)])
    yield f"{subscription}/resourceGroups/thing"


def _record(file: Path) -> None:
    """From now on in this process: write down the routes of the application that a room serves."""
    original = Room.serving

    @contextlib.asynccontextmanager
    async def serving(self: Room, handler: Any, **more: Any) -> AsyncIterator[None]:
        # The doors in the router, which know no client certificates, have tests of their own.
        if isinstance(handler, web.Application) and more.get("clients", "rooms") is not None:
            file.write_bytes(msgspec.json.encode([_told(route) for route in handler.router.routes()]))
        async with original(self, handler, **more):
            yield

    Room.serving = serving  # type: ignore[method-assign]


def _told(route: web.AbstractRoute) -> _Told:
    assert route.resource is not None
    info = route.resource.get_info()
    pattern = info.get("pattern")
    formatter = info.get("formatter") or str(info.get("path", "")).replace("{", "{{").replace("}", "}}")
    return _Told(route.method, route.resource.canonical, formatter, pattern.pattern if pattern is not None else "")
