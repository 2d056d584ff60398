"""The hooks of a container, after its start and before its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cumulet.instances.actions import http
from cumulet.instances.actions.result import ActionError, Result
from cumulet.instances.actions.targets import Targets
from cumulet.instances.model.lifecycle import Handler

log = logging.getLogger(__name__)

#: Runs a command in the container; returns its exit code and its output. Raises `ActionError`.
Execute = Callable[[list[str]], Awaitable[tuple[int, bytes]]]
#: A hook has no limit of its own; only its container's grace period ends it.
_NO_LIMIT = 10.0**9


async def run_hook(hook: Handler, address: str, execute: Execute, targets: Targets) -> bool:
    """Run a hook; return whether it succeeded. As in the kubelet, any answer to an HTTP request is a success."""
    if hook.sleep is not None:
        await asyncio.sleep(hook.sleep.seconds)
        return True
    if hook.http_get is not None:
        result = await http.get(hook.http_get, address, targets, _NO_LIMIT, "lifecycle")
        return _answered(result)
    if hook.exec is not None:
        try:
            code, _ = await execute(hook.exec.command)
        except ActionError as error:
            log.info("a hook was not run: %s", error)
            return False
        return code == 0
    return False  # a kubelet, too, has no such hook with tcpSocket


def _answered(result: Result) -> bool:
    return result.outcome != "failure" or result.output.startswith("HTTP probe failed with statuscode")
