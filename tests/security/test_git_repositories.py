"""gitRepo volumes: a clone of a repository on a server that we did not write, and what is refused."""

# ruff: noqa: F811  (fixtures of another folder are imported by the names under which they are used)

from __future__ import annotations

import asyncio
import functools
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cumulet.common.config import Config
from cumulet.common.tls import Authority
from tests.cloud import PEERS
from tests.instances.conftest import door, machine, registry, room, shared_config  # noqa: F401
from tests.instances.door import FrontDoor, group, is_over, shell


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, or sends a client elsewhere, and logs nothing."""

    def do_GET(self) -> None:
        if "/elsewhere.git/" in self.path:
            self.send_response(302)
            self.send_header("Location", f"https://127.0.0.1:1{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def repository(shared_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a repository with two commits, whose first has the tag `first`, by git's protocol of plain files."""
    folder = tmp_path_factory.mktemp("git")
    work = folder / "work"
    work.mkdir()
    git(work, "init", "--quiet")
    (work / "link").symlink_to("/etc/passwd")
    for word in ("first", "second"):
        (work / "word").write_text(f"{word}\n")
        git(work, "add", ".")
        git(work, "commit", "--quiet", "-m", word)
        git(work, "tag", word)
    git(folder, "clone", "--quiet", "--bare", "work", "site/app.git")
    git(folder / "site" / "app.git", "update-server-info")
    authority = Authority.load(shared_config.authority_file("serving"), shared_config.authority_key_file("serving"))
    for name, content in zip(("server.crt", "server.key"), authority.issue("git", hosts=[PEERS]), strict=True):
        (folder / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    handler = functools.partial(Quiet, directory=str(folder / "site"))
    with ThreadingHTTPServer((PEERS, 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://{PEERS}:{server.server_address[1]}/app.git"
        finally:
            server.shutdown()
            thread.join()


def cloning(script: str, **volume: Any) -> dict[str, Any]:
    """A group that mounts a clone."""
    mounts = [{"name": "v", "mountPath": "/v"}]
    body = group(
        shell(script, volumeMounts=mounts), restartPolicy="Never", volumes=[{"name": "v", "gitRepo": volume}]
    )
    del body["properties"]["pod"]
    return body


async def test_a_repository_is_cloned_at_a_revision(door: FrontDoor, repository: str) -> None:
    script = "cat /v/*/word; ls /v; cat /v/*/link; id -u; echo x > /v/app/new && echo written"
    await door.call(
        "PUT", "clone", cloning(script, repository=repository.replace("//", "//user:secret@")), status=201
    )
    await door.call(
        "PUT", "clone-first", cloning("cat /v/word", repository=repository, revision="first", directory=".")
    )
    found = await door.until("clone", is_over)
    assert found["properties"]["volumes"][0]["gitRepo"] == {"repository": repository}
    content = (await door.call("GET", "clone/containers/web/logs"))["content"].splitlines()
    # A link is followed in the container.
    assert content == [
        "second",
        "app",
        "root:x:0:0:root:/:/bin/sh",
        "web:x:1001:1002:web:/www:/bin/sh",
        "0",
        "written",
    ]
    await door.until("clone-first", is_over)
    assert (await door.call("GET", "clone-first/containers/web/logs"))["content"] == "first\n"
    for name in ("clone", "clone-first"):
        await door.call("DELETE", f"{name}?gracePeriodSeconds=0")


@pytest.fixture
def elsewhere(repository: str) -> dict[str, str]:
    """Repositories that cannot be cloned, with what is said of them: none there, and servers that nobody may reach."""
    return {
        repository.replace("/app.git", "/nothing.git"): "not found",
        repository.replace("/app.git", "/elsewhere.git"): "403",
        "https://169.254.169.254/app.git": "403",
        "https://127.0.0.1:1/app.git": "403",
    }


async def test_a_repository_that_cannot_be_cloned_ends_the_group(door: FrontDoor, elsewhere: dict[str, str]) -> None:
    async def refused(name: str, url: str, said: str) -> None:
        operation = await door.operate("PUT", name, cloning("true", repository=url), status=201)
        assert operation["status"] == "Failed"
        assert "the repository of the volume 'v' cannot be cloned" in operation["error"]["message"]
        assert said in operation["error"]["message"]
        assert (await door.call("GET", name))["properties"]["instanceView"]["state"] == "Failed"
        await door.call("DELETE", f"{name}?gracePeriodSeconds=0")

    async with asyncio.TaskGroup() as tasks:
        for number, (url, said) in enumerate(elsewhere.items()):
            tasks.create_task(refused(f"clone-not-{number}", url, said))


@pytest.mark.parametrize(
    "volume",
    [
        {"repository": "--upload-pack=touch /tmp/x"}, {"repository": "ext::sh -c id"}, {"repository": "/etc"},
        {"repository": "file:///etc"}, {"repository": "ssh://host/a"}, {"repository": "http://host/a"},
        {"repository": "https://-oProxy/a"}, {"repository": "https://host/a b"}, {"repository": "https://host/a\n"},
        {"repository": "https://host/.git"},
        *({"repository": "https://host/a", "revision": revision} for revision in ("--help", "-", "a b", "a..b", "", "a\n")),
        *({"repository": "https://host/a", "directory": folder} for folder in ("-c", "..", "/a", "a/../b", "a\0b")),
    ],
)  # fmt: skip
async def test_nothing_from_outside_is_an_option_of_git(door: FrontDoor, volume: dict[str, str]) -> None:
    answer = await door.call("PUT", "clone-not", cloning("true", **volume), status=400)
    assert "gitRepo" in answer["error"]["target"]
