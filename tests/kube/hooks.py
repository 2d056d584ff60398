"""A webhook over TLS: answers admission reviews, and keeps its requests."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cumulet.common import tls
from cumulet.common.config import Config
from cumulet.common.tls import Authority
from tests.cloud import PEERS

Object = dict[str, Any]
#: A function from the request of a review to its response, without `uid`.
Answer = Callable[[Object], Object]


def allow(request: Object) -> Object:
    """Allow every request."""
    return {"allowed": True}


def patch(*operations: Object) -> Object:
    """Return a response that changes the object."""
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


def _context(config: Config) -> ssl.SSLContext:
    authority = Authority.load(config.authority_file("serving"), config.authority_key_file("serving"))
    certificate, key = (config.data_dir / f"webhook.{suffix}" for suffix in ("crt", "key"))
    for path, pem in zip((certificate, key), authority.issue("webhook", hosts=[PEERS]), strict=True):
        path.write_bytes(pem)
    return tls.server_context(certificate, key, client_ca=config.ca_file)


class Webhook:
    """Serves on a free port until closed, with a certificate of its own."""

    def __init__(self, config: Config) -> None:
        self.answer: Answer = allow
        self.requests: list[Object] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.requests.append(review["request"])
                response = {"uid": review["request"]["uid"], **hook.answer(review["request"])}
                body = json.dumps({**review, "response": response}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Do not log to the terminal."""

        self._server = ThreadingHTTPServer((PEERS, 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = _context(config).wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        authority = base64.b64encode(config.ca_file.read_bytes()).decode()
        self.config = {"url": f"https://{PEERS}:{self._server.server_port}/review", "caBundle": authority}

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def rule(self, name: str, resource: str, namespace: str, **more: Any) -> Object:
        """Return a webhook of a configuration, for one namespace."""
        rule = {"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": ["*"], "apiVersions": ["v1"]}
        return {
            "name": name,
            "clientConfig": self.config,
            "rules": [{**rule, "resources": [resource]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            **more,
        }
