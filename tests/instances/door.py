"""A room of its own process, and the front door's part played by a client with the front door's certificate."""

from __future__ import annotations

import contextlib
import io
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from cumulet.common import tls
from cumulet.common.config import Config
from cumulet.instances.cleanup import cleanup
from tests.instances.images import PASSWORD, USERNAME

API = "api-version=2023-05-01"
SERVER = "acrtest.azurecr.io"
SHARE_KEY = "a2V5IG9mIHRoZSBhY2NvdW50"
Group = dict[str, Any]


class RoomProcess:
    """The room as a process of its own, that can be killed and started again."""

    def __init__(self, config: Config, before: str = "") -> None:
        """`before` is Python that runs first, as on a machine that is another than this."""
        self.config = config
        self._before = before
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        command = [
            sys.executable,
            "-c",
            f"{self._before}\nimport cumulet.cli; cumulet.cli.main()",
            "serve",
            "instances",
        ]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "CUMULET_DATA_DIR": str(self.config.data_dir)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("instances "), "the room did not start"

    def stop(self, *, kill: bool = False) -> None:
        """End it, by SIGKILL or as it would like."""
        assert self._process is not None
        (self._process.kill if kill else self._process.terminate)()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def peak_memory(self) -> int:
        """The most bytes that it has held in memory since it started."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None


@contextlib.contextmanager
def running_room(config: Config) -> Iterator[RoomProcess]:
    """A room, and at the end nothing of it."""
    room = RoomProcess(config)
    room.start()
    try:
        yield room
    finally:
        if room.is_running():
            room.stop()
        cleanup(config)


class FrontDoor:
    """Calls the provider as the front door does."""

    def __init__(self, session: aiohttp.ClientSession, config: Config) -> None:
        self.session = session
        self._base = config.url("instances")
        self.subscription = f"/subscriptions/{config.subscription_id}"
        self.provider = f"{self.subscription}/resourceGroups/rg1/providers/Microsoft.ContainerInstance"

    async def call(self, method: str, path: str, body: Any = None, *, status: int | None = None) -> Any:
        """The decoded answer, whose status is below 400 unless another is expected."""
        if method == "DELETE":  # a virtual node waits until the group is gone
            path += f"{'&' if '?' in path else '?'}wait=true"
        content, _ = await self._send(method, path, body, status)
        return content

    async def operate(self, method: str, path: str, body: Any = None, *, status: int) -> dict[str, Any]:
        """Send a request that starts an operation, and return the operation when it has ended."""
        return await self.ended(await self.begin(method, path, body, status=status))

    async def begin(self, method: str, path: str, body: Any = None, *, status: int) -> str:
        """Send a request that starts an operation, and return the path of the operation."""
        _, headers = await self._send(method, path, body, status)
        return urlsplit(headers["Azure-AsyncOperation"]).path

    async def ended(self, operation: str) -> dict[str, Any]:
        """Return an operation when it has ended."""
        async for _ in self._changes():
            found = await self.call("GET", operation)
            if found["status"] != "InProgress":
                return dict(found)
        raise AssertionError("the watch never ends")

    async def _send(self, method: str, path: str, body: Any, status: int | None) -> tuple[Any, Mapping[str, str]]:
        if not path.startswith("/"):
            path = f"{self.provider}/containerGroups/{path}"
        separator = "&" if "?" in path else "?"
        headers = {"Referer": f"https://door.test{path}", "Content-Type": "application/json"}
        data = None if body is None else io.BytesIO(json.dumps(body).encode())
        async with self.session.request(
            method, f"{self._base}{path}{separator}{API}", data=data, headers=headers
        ) as answer:
            text = await answer.text()
            assert answer.status == status if status else answer.status < 400, f"{answer.status}: {text}"
            return json.loads(text) if text.startswith(("{", "[")) else text, answer.headers

    async def until(self, name: str, condition: Callable[[Group], bool]) -> Group:
        """Wait, by the watch, until a group is as wanted."""
        async for groups in self._changes():
            for group in groups:
                if group["name"] == name and condition(group):
                    return dict(group)
        raise AssertionError("the watch never ends")

    async def until_gone(self, name: str) -> None:
        """Wait, by the watch, until there is no such group."""
        async for groups in self._changes():
            if all(group["name"] != name for group in groups):
                return

    async def _changes(self) -> AsyncIterator[list[Group]]:
        """All groups, again with every change."""
        revision, known = 0, dict[str, Group]()
        while True:
            listed = await self.call("GET", f"{self.provider}/containerGroups?watch=true&since={revision}")
            revision = listed["revision"]
            if "removed" not in listed:
                known.clear()
            for gone in listed.get("removed", ()):
                known.pop(gone, None)
            known |= {group["id"]: group for group in listed["value"]}
            yield [*known.values()]

    async def get_page(self, group: Group, port: int = 80, path: str = "/") -> bytes:
        """What a group serves, asked again while its port is closed."""
        url = f"http://{group['properties']['ipAddress']['ip']}:{port}{path}"
        for _ in range(200):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with self.session.get(url) as answer:
                    return await answer.read()
        raise AssertionError(f"{url} does not answer")


@contextlib.asynccontextmanager
async def front_door(config: Config) -> AsyncIterator[FrontDoor]:
    """A client with the front door's certificate."""
    context: ssl.SSLContext = tls.client_context(config.ca_file, *config.room_files("arm"))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield FrontDoor(session, config)


def container(name: str = "web", image: str = "web:v1", **properties: Any) -> dict[str, Any]:
    """A container of a group."""
    return {
        "name": name,
        "properties": {
            "image": f"{SERVER}/{image}",
            "resources": {"requests": {"cpu": 0.5, "memoryInGB": 0.5}},
            **properties,
        },
    }


def shell(script: str, name: str = "web", **properties: Any) -> dict[str, Any]:
    """A container that runs a script."""
    return container(name, command=["/bin/sh", "-c", script], **properties)


def group(*containers: dict[str, Any], password: str = PASSWORD, **properties: Any) -> dict[str, Any]:
    """A container group with the credentials of the peer registry, as a virtual node sends it."""
    return {
        "location": "eastus",
        "tags": {"PodName": "web"},
        "properties": {
            "osType": "Linux",
            "restartPolicy": "Always",
            "pod": True,
            "ipAddress": {"type": "Public", "ports": [{"port": 80}]},
            "containers": list(containers),
            "imageRegistryCredentials": [{"server": SERVER, "username": USERNAME, "password": password}],
            **properties,
        },
    }


def state_of(group: Group, index: int = 0) -> dict[str, Any]:
    """The current state of a container."""
    view = group["properties"]["containers"][index]["properties"].get("instanceView") or {}
    return dict(view.get("currentState") or {})


def is_running(group: Group) -> bool:
    """Whether the first container runs."""
    return state_of(group).get("state") == "Running"


def is_over(group: Group) -> bool:
    """Whether the group has ended."""
    return group["properties"]["instanceView"]["state"] in ("Succeeded", "Failed")


def events_of(group: Group, index: int = 0) -> list[str]:
    """The names of a container's events."""
    view = group["properties"]["containers"][index]["properties"].get("instanceView") or {}
    return [event["name"] for event in view.get("events") or ()]
