"""A stand-in for a node's kubelet; its commands run on this machine."""

from __future__ import annotations

import asyncio
import json
import socket
import threading

import uvloop
from aiohttp import web

from cumulet.common import tls
from cumulet.common.config import Config
from cumulet.common.kubernetes.channels import Deliver, Options, relay
from cumulet.common.kubernetes.negotiation import accept
from cumulet.common.room import listen
from cumulet.node import forward
from cumulet.node.connections import connect_directly


class StandInKubelet:
    """Serves at the address of the node's kubelet, until closed, with that kubelet's certificate."""

    def __init__(self, config: Config) -> None:
        self.port = config.addresses["node"].port
        self.paths: list[str] = []
        #: The protocol of each upgraded connection.
        self.spoken: list[str] = []
        self.summary: dict[str, object] = {}
        self._config = config
        self._listener = listen(config.addresses["node"])
        # The rooms' event loop: asyncio's own leaves a connection open that is closed twice over TLS.
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """Stop."""
        # Rooms that were forked meanwhile have the socket too, and would keep the address in use.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application()
        app.add_routes(
            [
                web.get("/containerLogs/{namespace}/{pod}/{container}", self._log),
                web.get("/stats/summary", self._summary),
            ]
        )
        for add in (web.get, web.post):
            app.add_routes(
                [
                    add("/exec/{namespace}/{pod}/{container}", self._exec),
                    add("/attach/{namespace}/{pod}/{container}", self._attach),
                    add("/portForward/{namespace}/{pod}", self._port_forward),
                ]
            )
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        files = self._config.certificate_files("node")
        context = tls.server_context(*files, client_ca=self._config.authority_file("kubelet-client"))
        site = web.SockSite(runner, self._listener, ssl_context=context)
        await site.start()
        self._ready.set()
        await self._stop.wait()
        assert runner.server is not None
        for connection in runner.server.connections:
            # The other end keeps its connections open, and a graceful close would wait for them.
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def _log(self, request: web.Request) -> web.Response:
        self.paths.append(request.path_qs)
        return web.Response(text="one\ntwo\n")

    async def _summary(self, request: web.Request) -> web.Response:
        return web.json_response(self.summary)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        """As the node's own, with every pod at the address of this machine."""
        self.paths.append(request.path_qs)
        return await forward.serve(
            request, lambda port: connect_directly("127.0.0.1", port, f"error forwarding port {port} to pod")
        )

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        return await self._run_in(request, request.query.getall("command"))

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        """The container's own process writes back its input."""
        return await self._run_in(request, ["cat"] if request.query.get("input") else ["echo", "on its own"])

    async def _run_in(self, request: web.Request, command: list[str]) -> web.StreamResponse:
        self.paths.append(request.path_qs)
        if command[0] == "refused":
            raise web.HTTPInternalServerError(text='container not found ("c")')
        options = [request.query.get(name) == "1" for name in ("input", "output", "error", "tty")]
        async with accept(request, Options(*options)) as (response, client):
            self.spoken.append(request.headers.get("Upgrade", ""))
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            await relay(client, _Process(process))
            return response


class _Process:
    """A process as one end of a remote command; terminal sizes are written to its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def send(self, frame: bytes) -> None:
        assert self._process.stdin is not None
        if frame[0] == 0:
            self._process.stdin.write(frame[1:])
            await self._process.stdin.drain()
        elif frame == b"\xff\x00":
            self._process.stdin.close()
        elif frame[0] == 4:
            self._process.stdin.write(frame[1:] + b"\n")

    async def run(self, deliver: Deliver) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None

        async def out(channel: int, stream: asyncio.StreamReader) -> None:
            while data := await stream.read(4096):
                await deliver(bytes([channel]) + data)

        await asyncio.gather(out(1, self._process.stdout), out(2, self._process.stderr))
        status: dict[str, object] = {"status": "Success"}
        if code := await self._process.wait():
            causes = [{"reason": "ExitCode", "message": str(code)}]
            message = f"command terminated with non-zero exit code: exit status {code}"
            status = {"status": "Failure", "reason": "NonZeroExitCode", "message": message}
            status["details"] = {"causes": causes}
        await deliver(b"\x03" + json.dumps(status).encode())

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
