"""A TCP connection as the kubelet makes it (`pkg/probe/tcp`): established is enough."""

from __future__ import annotations

import asyncio
import socket

from cumulet.instances.actions.http import dial_words
from cumulet.instances.actions.result import Result
from cumulet.instances.actions.targets import Targets
from cumulet.instances.model.lifecycle import TcpSocket


async def dial(action: TcpSocket, address: str, targets: Targets, timeout: float) -> Result:  # noqa: ASYNC109
    """Connect and close the connection; `timeout` is in seconds."""
    host = action.host or address
    try:
        async with asyncio.timeout(timeout):
            _, writer = await targets.connect(address, action.host, action.port)
    except TimeoutError:
        return Result("failure", f"dial tcp {host}:{action.port}: i/o timeout")
    except socket.gaierror:
        return Result("failure", f"dial tcp: lookup {host}: no such host")
    except OSError as error:
        return Result("failure", dial_words(host, action.port, error))
    writer.close()
    return Result("success")
