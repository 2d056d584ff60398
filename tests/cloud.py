"""Rooms that run beside the tests, each in a process on a port of its own, and a plain HTTP client for them."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import ssl
import traceback
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

import msgspec

from cumulet.common import router, tls
from cumulet.common.config import DEFAULT_PORTS, Address, Config, RoomName
from cumulet.common.egress import Exempt
from cumulet.common.entra import ARM_AUDIENCE, GRAPH_AUDIENCE, Credential, read_credential
from cumulet.common.room import listen, run
from cumulet.up.install import install
from tests.connections import Connections, Target

#: Where servers of the tests listen that rooms may connect to at a user's word: an address of this machine, which is
#: refused unless it is excepted, and not the one of the rooms.
PEERS = "127.0.0.2"


#: Whose certificate is shown: a room's, the scraper's, one in files, or nobody's.
Shown = RoomName | Literal["metrics"] | tuple[Path, Path] | None


def _tell(pipe: int) -> None:
    os.write(pipe, b"!")


class Answer(NamedTuple):
    """What a server answered; `body` is decoded JSON where it is that."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The code in ARM's error body."""
        code: str = self.body["error"]["code"]
        return code


class Cloud:
    """An installation of which some rooms run; `settings` are those that differ from a new one's."""

    def __init__(self, data_dir: Path, *rooms: RoomName, **settings: Any) -> None:
        installed = install(data_dir, ports=dict.fromkeys(DEFAULT_PORTS, 0), allow_egress=[Exempt(PEERS)])
        settings = {"tls": os.environ.get("CUMULET_TEST_TLS", "own"), **settings}
        self.config: Config = msgspec.structs.replace(installed, **settings)
        self.subscription = f"/subscriptions/{self.config.subscription_id}"
        self.owner = read_credential(self.config.credential_file("owner"))
        names: tuple[RoomName, ...] = ("identity", *rooms)
        self._listeners = {name: self._listen(name) for name in names}
        self._running: dict[RoomName, int] = {}
        self._connections: dict[object, Connections] = {}
        try:
            for name in self._listeners:
                self.start(name)
        except BaseException:
            self.close()
            raise

    def _listen(self, name: RoomName) -> list[socket.socket]:
        return [listen(address) for address in self.config.listening(name)]

    def start(self, name: RoomName) -> None:
        """Start a room, as the supervisor does, and wait until it is ready."""
        self._hang_up()
        ready, told = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(ready)
            self._run(name, told)
        os.close(told)
        self._running[name] = process
        with open(ready, "rb") as file:  # noqa: PTH123
            assert file.read(1), f"{name} did not start"

    @contextlib.contextmanager
    def changed(self, name: RoomName, **settings: Any) -> Iterator[None]:
        """Meanwhile a room has other settings."""
        before = self.config
        self.stop(name)
        self.config = msgspec.structs.replace(before, **settings)
        try:
            self.start(name)
            yield
        finally:
            self.stop(name)
            self.config = before
            self.start(name)

    @contextlib.contextmanager
    def another(self, name: RoomName) -> Iterator[None]:
        """A second copy of a room beside the first, on a port of its own."""
        first, process = self._listeners[name], self._running[name]
        self._listeners[name] = [listen(Address("127.0.0.1", 0))]
        try:
            self.start(name)
            second = self._running[name]
        finally:
            for listener in self._listeners[name]:
                listener.close()
            self._listeners[name], self._running[name] = first, process
        try:
            yield
        finally:
            os.kill(second, signal.SIGTERM)
            os.waitpid(second, 0)

    def _run(self, name: RoomName, told: int) -> None:
        warnings.resetwarnings()
        try:
            module = importlib.import_module(f"cumulet.{name}.room")
            log_file = self.config.data_dir / "logs" / f"{name}.log"
            run(
                name,
                self.config,
                module.serve,
                listeners=self._listeners[name],
                on_ready=lambda: _tell(told),
                log_file=log_file,
                **({"new_event_loop": module.new_event_loop} if hasattr(module, "new_event_loop") else {}),
            )
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def stop(self, name: RoomName, number: int = signal.SIGTERM) -> None:
        """Stop a room; its socket goes on listening and holds back who calls meanwhile."""
        process = self._running.pop(name)
        os.kill(process, number)
        os.waitpid(process, 0)

    def _hang_up(self) -> None:
        """Close the connections that wait for the next call: a process that is forked would keep them open."""
        for connections in self._connections.values():
            connections.close()

    def kill(self, name: RoomName) -> None:
        """Stop a room with no warning, and start it again."""
        self.stop(name, signal.SIGKILL)
        self.start(name)

    def peak_memory(self, name: RoomName) -> int:
        """The most bytes that a room has held since it was forked; it begins with those of this process."""
        status = Path(f"/proc/{self._running[name]}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def processor_time(self, name: RoomName) -> float:
        """Seconds of a processor that a room has taken since it started."""
        fields = Path(f"/proc/{self._running[name]}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self, name: RoomName) -> str:
        """What a room wrote in its log."""
        return (self.config.data_dir / "logs" / f"{name}.log").read_text()

    def close(self) -> None:
        """Stop everything."""
        self._hang_up()
        for name in reversed(list(self._running)):  # clients first, as they release their leases
            self.stop(name)
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.close()
        if os.geteuid() == 0:
            router.remove(self.config)  # which the rooms instances and network make

    def call(
        self,
        room: RoomName,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: Any = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        show: Shown = None,
    ) -> Answer:
        """One request, its path sent as it is written; `show` is the room, or the files, whose certificate is shown."""
        sent = dict(headers or {})
        data: bytes | None = None
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if form is not None:
            data = urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        elif body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        with self.connections(room, show).take() as connection:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            raw = response.read()
        is_json = (response.headers.get_content_type() == "application/json") and raw
        return Answer(response.status, response.headers, json.loads(raw) if is_json else raw)  # type: ignore[arg-type]

    def connections(self, room: RoomName, show: Shown = None) -> Connections:
        """The connections to a room with whose certificate; new ones when a certificate is."""
        files = (self._trusted(room), self.config.certificate_files(room)[0], *self._files(room, show))
        changed = tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
        key = (self.config.addresses[room], files, changed)
        if key not in self._connections:
            address = self.config.addresses[room]
            self._connections[key] = Connections(Target(address.host, address.port, self.tls(room, show)))
        return self._connections[key]

    def tls(self, room: RoomName, show: Shown = None) -> ssl.SSLContext:
        """How a room is called, with whose certificate."""
        return tls.client_context(self._trusted(room), *self._files(room, show))

    def _trusted(self, room: RoomName) -> Path:
        return self.config.authority_file(self.config.serving_authority(room))

    def _files(self, room: RoomName, show: Shown) -> tuple[Path, ...]:
        if show is None:
            return ()
        if show == "metrics":
            return self.config.user_files(show) if room == "kube" else self.config.scraper_files
        return self.config.room_files(show) if isinstance(show, str) else show

    # Who calls.

    def ask_token(self, **form: str) -> Answer:
        """The token end point's answer to a form."""
        filled = {"grant_type": "client_credentials", "scope": f"{ARM_AUDIENCE}/.default", **form}
        path = f"/{self.config.tenant_id}/oauth2/v2.0/token"
        return self.call("identity", "POST", path, form=filled)

    def token(self, credential: Credential | None = None, audience: str = ARM_AUDIENCE) -> str:
        """An access token, the owner's unless said otherwise."""
        who = credential or self.owner
        answer = self.ask_token(
            client_id=who.client_id, client_secret=who.client_secret, scope=f"{audience}/.default"
        )
        assert answer.status == 200, answer.body
        token: str = answer.body["access_token"]
        return token

    def arm(self, method: str, path: str, body: Any = None, *, as_: Credential | None = None, **more: Any) -> Answer:
        """A call of the front door."""
        return self.call("arm", method, path, token=self.token(as_), body=body, **more)

    def graph(self, method: str, path: str, body: Any = None, *, as_: Credential | None = None) -> Answer:
        """A call of Microsoft Graph."""
        return self.call("identity", method, f"/v1.0{path}", token=self.token(as_, GRAPH_AUDIENCE), body=body)

    def principal(self, name: str, **roles: str) -> Credential:
        """A new service principal with a secret and roles, given as `RoleName=scope`."""
        application = self.graph("POST", "/applications", {"displayName": name}).body
        principal = self.graph("POST", "/servicePrincipals", {"appId": application["appId"]}).body
        secret = self.graph("POST", f"/applications/{application['id']}/addPassword", {}).body
        for role, scope in roles.items():
            answer = self.assign(principal["id"], role, scope)
            assert answer.status == 201, answer.body
        return Credential(
            tenant_id=self.config.tenant_id,
            client_id=application["appId"],
            object_id=principal["id"],
            display_name=name,
            client_secret=secret["secretText"],
        )

    def assign(self, object_id: str, role: str, scope: str, **more: Any) -> Answer:
        """Give a role, by its name, to a principal."""
        definitions = f"{self.subscription}/providers/Microsoft.Authorization/roleDefinitions"
        found = self.arm("GET", f"{definitions}?" + urlencode({"$filter": f"roleName eq '{role}'"})).body["value"]
        properties = {"roleDefinitionId": found[0]["id"], "principalId": object_id, **more}
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        return self.arm("PUT", path, {"properties": properties})
