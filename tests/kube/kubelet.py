"""A stand-in for a node's kubelet: logs, and exec as remotecommand's version 5 over WebSockets, run on this machine."""

from __future__ import annotations

import asyncio
import json
import threading

import uvloop
from aiohttp import WSMsgType, web

from cumulet.common import tls
from cumulet.common.config import Config
from cumulet.node.forward import CHANNELS, TUNNEL, forward


class StandInKubelet:
    """Serves on a free port until closed; shows the node's certificate."""

    def __init__(self, config: Config) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.summary: dict[str, object] = {}
        self._config = config
        # As the rooms: asyncio's own leaves a connection behind whose farewell over TLS was asked for twice.
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """Stop."""
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
                web.get("/exec/{namespace}/{pod}/{container}", self._exec),
                web.get("/attach/{namespace}/{pod}/{container}", self._attach),
                web.get("/stats/summary", self._summary),
                web.get("/portForward/{namespace}/{pod}", self._port_forward),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        files = self._config.certificate_files("node")
        context = tls.server_context(*files, client_ca=self._config.ca_file)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        assert runner.server is not None
        for connection in runner.server.connections:
            # The other end keeps its connections, and would take its time to take leave.
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def _log(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        return web.Response(text="one\ntwo\n")

    async def _summary(self, request: web.Request) -> web.Response:
        return web.json_response(self.summary)

    async def _port_forward(self, request: web.Request) -> web.WebSocketResponse:
        """As the node's own, with every pod at this machine's own address."""
        self.asked.append(request.path_qs)
        socket = web.WebSocketResponse(protocols=[TUNNEL, CHANNELS])
        await socket.prepare(request)
        await forward(socket, "127.0.0.1", [int(port) for port in request.query.getall("port", [])])
        return socket

    async def _exec(self, request: web.Request) -> web.WebSocketResponse:
        return await self._run_in(request, request.query.getall("command"))

    async def _attach(self, request: web.Request) -> web.WebSocketResponse:
        """The container's own process gives back what it reads."""
        return await self._run_in(request, ["cat"] if request.query.get("input") else ["echo", "on its own"])

    async def _run_in(self, request: web.Request, command: list[str]) -> web.WebSocketResponse:
        self.asked.append(request.path_qs)
        socket = web.WebSocketResponse(protocols=["v5.channel.k8s.io"])
        await socket.prepare(request)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None

        async def out(channel: int, stream: asyncio.StreamReader) -> None:
            while data := await stream.read(4096):
                await socket.send_bytes(bytes([channel]) + data)

        async def into(stdin: asyncio.StreamWriter) -> None:
            async for message in socket:
                if message.type is WSMsgType.BINARY and message.data[0] == 0:
                    stdin.write(message.data[1:])
                elif message.type is WSMsgType.BINARY and message.data == b"\xff\x00":
                    stdin.close()

        reading = asyncio.create_task(into(process.stdin))
        await asyncio.gather(out(1, process.stdout), out(2, process.stderr))
        code = await process.wait()
        status: dict[str, object] = {"status": "Success"}
        if code:
            causes = [{"reason": "ExitCode", "message": str(code)}]
            status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        await socket.send_bytes(b"\x03" + json.dumps(status).encode())
        await socket.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return socket
