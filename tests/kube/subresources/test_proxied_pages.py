"""Pages through the proxy of a pod: their links lead through the proxy too."""

from __future__ import annotations

import gzip
import threading
import uuid
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cumulet.common.egress import Exempt
from tests.cloud import Answer
from tests.kube.conftest import Server

PAGE = """<!DOCTYPE html>
<html><head><link rel="stylesheet" href="/style.css?a=1&amp;b=2"><script src='/js/app.js'></script></head>
<body background=/bg.png><!-- <a href="/comment"> --><a HREF="/a/">dir</a> <a href="near.html">near</a>
<a href="https://elsewhere.example/x">away</a> <a href="//elsewhere.example/y">away</a> <a href="//OWN/z">own</a>
<img src="/i.png" alt="a &amp; b"/><form action="/send"><button formaction="/other">x</button></form>
<script>var a = '<a href="/in-a-script">';</script><p title="/no-link">caf\u00e9 &eacute;</p></body></html>
"""


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        own = f"127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
        kind, _, packed = self.path.strip("/").partition("-")
        body = PAGE.replace("OWN", own).encode()
        if kind == "large":
            body += b"<!-- " + b"x" * 9_000_000 + b" -->"
        headers = {"Content-Type": "text/plain" if kind == "text" else "text/html; charset=utf-8"}
        if packed and kind != "move":
            body = {"gzip": gzip.compress, "deflate": zlib.compress, "odd": lambda raw: raw}[packed](body)
            headers["Content-Encoding"] = packed
        if kind == "move":
            headers["Location"] = {
                "here": "/there?x=1",
                "own": f"http://{own}/there",
                "away": "http://elsewhere.example/",
            }[packed]
            body = b""
        self.send_response(302 if kind == "move" else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if kind == "stream":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (body[:100], body[100:]):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Do not log to the terminal."""


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """The port of a web site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


class Proxy:
    """A pod's proxy."""

    def __init__(self, server: Server, path: str) -> None:
        self._server = server
        self.path = path

    def get(self, path: str) -> Answer:
        """Get one page, without following redirects."""
        return self._server.call("GET", f"{self.path}{path}")


@pytest.fixture(scope="module")
def proxy(server: Server, site: int) -> Iterator[Proxy]:
    """The pod of that site; connections to its address are allowed during the tests."""
    space = server.namespace(f"p{uuid.uuid4().hex[:8]}")
    server.make(f"{space}/pods", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    status = {"status": {"podIP": "127.0.0.1", "phase": "Running"}}
    server.call("PATCH", f"{space}/pods/p/status", status, content_type="application/merge-patch+json")
    with server.cloud.changed("kube", allow_egress=[Exempt("127.0.0.1")]):
        yield Proxy(server, f"{space}/pods/p:{site}/proxy")


def expected(proxy: Proxy, site: int) -> str:
    """Return the page as the client should see it."""
    at = proxy.path
    changes = {
        '<link rel="stylesheet" href="/style.css?a=1&amp;b=2">': f'<link rel="stylesheet" href="{at}/style.css?a=1&amp;b=2">',
        "<script src='/js/app.js'>": f'<script src="{at}/js/app.js">',
        "<body background=/bg.png>": f'<body background="{at}/bg.png">',
        '<a HREF="/a/">': f'<a href="{at}/a/">',
        f'<a href="//127.0.0.1:{site}/z">': f'<a href="{at}/z">',
        '<img src="/i.png" alt="a &amp; b"/>': f'<img src="{at}/i.png" alt="a &amp; b"/>',
        '<form action="/send"><button formaction="/other">': f'<form action="{at}/send"><button formaction="{at}/other">',
    }
    page = PAGE.replace("OWN", f"127.0.0.1:{site}")
    for old, new in changes.items():
        assert old in page
        page = page.replace(old, new)
    return page


@pytest.mark.parametrize("path", ["/", "/page", "/page-gzip", "/page-deflate", "/stream"])
def test_links_lead_through_the_proxy(proxy: Proxy, site: int, path: str) -> None:
    answer = proxy.get(path)
    assert answer.status == 200
    assert answer.body.decode() == expected(proxy, site)


@pytest.mark.parametrize("path", ["/text", "/page-odd", "/large"])
def test_other_content_is_unchanged(proxy: Proxy, site: int, path: str) -> None:
    body = proxy.get(path).body
    assert body[: len(PAGE)].decode(errors="ignore").startswith(PAGE[:200])
    assert b'href="/style.css' in body
    assert len(body) > 9_000_000 or path != "/large"


@pytest.mark.parametrize(
    ("path", "to"),
    [("/move-here", "{}/there?x=1"), ("/move-own", "{}/there"), ("/move-away", "http://elsewhere.example/")],
)
def test_redirections_lead_through_the_proxy(proxy: Proxy, path: str, to: str) -> None:
    answer = proxy.get(path)
    assert (answer.status, answer.headers["Location"]) == (302, to.format(proxy.path))
