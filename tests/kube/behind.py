"""An API server to aggregate."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cumulet.common.tls import Authority
from tests.cloud import PEERS, Answer
from tests.kube.conftest import Server

Object = dict[str, Any]

SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"


class Behind:
    """A server of `things`, with a certificate of its own authority for the service `s` in a namespace."""

    def __init__(self, server: Server, space: str, folder: Path, group: str = "", version: str = "v1") -> None:
        self.group = group or f"g{uuid.uuid4().hex[:8]}.example.com"
        self.version = version
        #: Responses by path, beside the resources that it serves.
        self.answers: dict[str, Object] = {}
        self.server = server
        self.namespace = space.rpartition("/")[2]
        self.space = space
        self.requests: list[tuple[str, str, dict[str, str], Object]] = []
        behind = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                peer = dict(item for names in self.connection.getpeercert()["subject"] for item in names)
                headers = {**self.headers, "peer": peer["commonName"]}
                headers["groups"] = ",".join(self.headers.get_all("X-Remote-Group") or ())
                behind.requests.append((self.command, self.path, headers, body))
                found = json.dumps(behind.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                """Do not log to the terminal."""

        authority = Authority.open(folder / "ca.crt", folder / "ca.key")
        for suffix, pem in zip(("crt", "key"), authority.issue("s", hosts=[f"s.{self.namespace}.svc"]), strict=True):
            (folder / f"s.{suffix}").write_bytes(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "s.crt", folder / "s.key")
        context.load_verify_locations(server.cloud.config.authority_file("front-proxy"))
        context.verify_mode = ssl.CERT_REQUIRED
        self.bundle = base64.b64encode((folder / "ca.crt").read_bytes()).decode()
        self._http = ThreadingHTTPServer((PEERS, 0), Handler)
        self._http.daemon_threads = True
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.call("DELETE", f"{SERVICES}/{self.version}.{self.group}")
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, path: str) -> Object:
        plain = path.partition("?")[0]
        if plain in self.answers:
            return self.answers[plain]
        if path.endswith(f"/{self.version}"):
            thing = {
                "name": "things",
                "singularName": "thing",
                "namespaced": True,
                "kind": "Thing",
                "verbs": ["get", "list"],
            }
            part = {**thing, "name": "things/size", "singularName": "", "verbs": ["get"]}
            resources = [{**thing, "shortNames": ["th"]}, part]
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{self.group}/{self.version}",
                "resources": resources,
            }
        item = {"metadata": {"name": "one", "namespace": self.namespace}}
        version = {"apiVersion": f"{self.group}/{self.version}"}
        return {**version, "kind": "ThingList", "metadata": {}, "items": [{**version, "kind": "Thing", **item}]}

    def register(self, **spec: Any) -> Answer:
        service = {"namespace": self.namespace, "name": "s", "port": 443}
        priorities = {"groupPriorityMinimum": 100, "versionPriority": 10}
        spec = {
            "group": self.group,
            "version": self.version,
            "service": service,
            "caBundle": self.bundle,
            **priorities,
            **spec,
        }
        body = {"metadata": {"name": f"{self.version}.{self.group}"}, "spec": spec}
        return self.server.call("POST", SERVICES, {key: value for key, value in body.items() if value is not None})

    def serve(self) -> None:
        """Create the service with an endpoint."""
        ports = [{"name": "https", "port": 443}]
        self.server.make(f"{self.space}/services", {"metadata": {"name": "s"}, "spec": {"ports": ports}})
        slice_ = {
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [PEERS]}],
            "ports": [{"name": "https", "port": self._http.server_port}],
        }
        self.server.make(f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices", slice_)

    def condition(self, reason: str, text: str = "") -> Object:
        """Return the condition once it has this reason and its message contains this text."""
        query = f"watch=true&timeoutSeconds=10&fieldSelector=metadata.name={self.version}.{self.group}"
        connection = self.server.cloud.config.addresses["kube"]
        client = http.client.HTTPSConnection(connection.host, connection.port, context=self.server.tls, timeout=15)
        try:
            client.request("GET", f"{SERVICES}?{query}")
            response = client.getresponse()
            while line := response.readline():
                for found in (json.loads(line)["object"].get("status") or {}).get("conditions") or ():
                    if found.get("reason") == reason and text in found["message"]:
                        return dict(found)
        finally:
            client.close()
        raise AssertionError(f"it never came to {reason}")
