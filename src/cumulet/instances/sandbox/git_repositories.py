"""Clones the repositories of gitRepo volumes, with the machine's git.

The content of a repository and the answers of its server are untrusted. git runs without privileges, as a user of the
group's own range, in a file system in memory of bounded size, for a bounded time. It speaks https only, and reaches servers
through a proxy that checks addresses. It reads no settings of the machine, asks for nothing, runs no hooks and follows no
submodules. No argument from outside can be an option.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from cumulet.common.config import Config
from cumulet.common.egress import Egress
from cumulet.instances.model.properties import GitRepo
from cumulet.instances.sandbox import beneath
from cumulet.instances.sandbox.connect_proxy import checked_proxy
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.idmap import give_to_root
from cumulet.instances.sandbox.mounts import attach, clone, mount_tmpfs, unmount
from cumulet.instances.sandbox.names import run_dir
from cumulet.instances.sandbox.programs import in_memory

#: Bytes of a volume, seconds of a clone, and limits of git's processes: seconds of processor time, bytes of memory.
_SIZE, _SECONDS, _CPU, _MEMORY = 512 * 1024 * 1024, 300.0, 120, 2 * 1024**3
_FILES = 200_000
_SHOWN = 300
#: The user of a group without a user namespace.
_NOBODY = 65534
_PROGRAMS = ("git", "setpriv", "prlimit")
_USERINFO = re.compile(r"//[^/@\s]*@", re.ASCII)


def missing_program() -> str | None:
    """Return a program that gitRepo volumes need and this machine does not have."""
    return next((name for name in _PROGRAMS if shutil.which(name) is None), None)


class GitRepositories:
    """Clones repositories into volumes."""

    def __init__(self, config: Config, egress: Egress) -> None:
        self._folder = run_dir(config)
        self._trusted = config.trust_bundle_file
        self._egress = egress

    async def clone(self, volume: str, repository: GitRepo, target: Path, start: int, memory: int) -> None:
        """Mount a clone of a repository at `target`, a folder of this room.

        `start` is the first id of the group's range, 0 without one, and `memory` the bytes that the volume can have at most.
        Raises `SandboxError`.
        """
        folder = Path(tempfile.mkdtemp(dir=self._folder, prefix="git-"))
        user = start or _NOBODY
        try:
            folder.chmod(0o711)
            mount_tmpfs(folder, 0o700, min(_SIZE, memory), files=_FILES)
            os.chown(folder, user, user)
            try:
                async with asyncio.timeout(_SECONDS), checked_proxy(self._egress) as proxy:
                    await self._run(folder, user, proxy, repository)
            except TimeoutError:
                raise SandboxError(
                    f"the repository of the volume '{volume}' was not cloned within {_SECONDS:.0f} seconds"
                ) from None
            except _GitError as error:
                raise SandboxError(f"the repository of the volume '{volume}' cannot be cloned: {error}") from None
            await asyncio.to_thread(self._hand_over, folder, target)
        finally:
            await asyncio.to_thread(unmount, folder)
            with contextlib.suppress(OSError):
                folder.rmdir()

    async def _run(self, folder: Path, user: int, proxy: str, repository: GitRepo) -> None:
        """Clone a repository into a folder, and check out its revision. Raises `_GitError`."""
        with in_memory(self._trusted.read_bytes()) as certificates:
            settings = {
                "http.proxy": proxy,
                "http.sslCAInfo": f"/proc/self/fd/{certificates}",
                "http.followRedirects": "initial",
                "protocol.allow": "never",
                "protocol.https.allow": "always",
                "core.hooksPath": "/dev/null",
                "core.fsmonitor": "false",
                "credential.helper": "",
                "submodule.recurse": "false",
                "transfer.fsckObjects": "true",
            }
            options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            into = repository.folder
            clone_options = ("--quiet", "--no-recurse-submodules", "--template=", "--no-local")
            await self._git(
                folder, user, certificates, *options, "clone", *clone_options, "--", repository.repository, into
            )
            if repository.revision is not None:
                checkout = ("checkout", "--quiet", "--detach", repository.revision, "--")
                await self._git(folder / into, user, certificates, *options, *checkout)

    async def _git(self, folder: Path, user: int, certificates: int, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"),
            *("--bounding-set=-all", "prlimit", f"--cpu={_CPU}", f"--as={_MEMORY}", "--core=0", "--nofile=256"),
            *("git", *arguments),
            cwd=folder,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": "/nonexistent",
                "LC_ALL": "C",
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_ASKPASS": "/bin/false",
                "GIT_LFS_SKIP_SMUDGE": "1",
            },
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            pass_fds=[certificates],
            start_new_session=True,
        )
        assert process.stderr is not None
        try:
            errors = await process.stderr.read(64 * 1024)
            code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if code:
            raise _GitError(_reason(errors))

    @staticmethod
    def _hand_over(folder: Path, target: Path) -> None:
        """Give the files to the user 0 of the disk, which is the root of a group, and mount them at `target`."""
        give_to_root(folder)
        descriptor = beneath.open_folder(folder)
        try:
            attach(clone(descriptor), target)
        finally:
            os.close(descriptor)


class _GitError(Exception):
    """git failed; the message is its own."""


def _reason(errors: bytes) -> str:
    """Return git's reason on one line, without the credentials of a URL."""
    lines = [line for line in errors.decode(errors="replace").splitlines() if line.startswith(("fatal:", "error:"))]
    text = " ".join(lines or errors.decode(errors="replace").splitlines())
    shown = "".join(character if character.isprintable() else " " for character in text)
    return _USERINFO.sub("//", shown)[:_SHOWN].strip()
