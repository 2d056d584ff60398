"""The client and the informer with what other API servers answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from cumulet.common.kubernetes import Client, Informer, load_kubeconfig
from cumulet.common.kubernetes.client import METADATA_LIST_ONLY, PODS


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """A kubeconfig in the form that `kubectl config` writes, its server still to be put in."""
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:0"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "t"}}
    document = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "x"}
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    return path


async def test_an_empty_list_may_be_null(kubeconfig: Path) -> None:
    """A kube-apiserver of 1.36 writes an empty PartialObjectMetadataList so."""
    ended = asyncio.Event()

    async def pods(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            await ended.wait()
            return response
        kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
        return web.json_response(kind | {"metadata": {"resourceVersion": "7"}, "items": None})

    app = web.Application()
    app.router.add_get("/api/v1/pods", pods)
    async with TestServer(app) as server:
        kubeconfig.write_text(kubeconfig.read_text().replace("http://127.0.0.1:0", str(server.make_url(""))))
        async with Client(load_kubeconfig(kubeconfig), user_agent="test") as client:
            assert (await client.list(PODS, accept=METADATA_LIST_ONLY))["items"] == []
            informer = Informer(client, PODS, metadata_only=True)
            running = asyncio.create_task(informer.run())
            await asyncio.wait_for(informer.synced.wait(), 10)
            assert list(informer) == []
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        ended.set()
