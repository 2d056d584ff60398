"""The served resources, compared with a Kubernetes 1.36 API server: discovery, columns of tables, paths of OpenAPI.

`data/served.jsonl` has the recording. Differences are listed here, with the reason.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kube.conftest import Server

LINES = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "served.jsonl").read_text().splitlines()]

#: Resources that are not served, with the reason.
NOT_SERVED = {
    "v1/componentstatuses": "deprecated since 1.19; components tell how they are under /healthz",
}


def _is_served(name: str) -> bool:
    return not any(name == other or name.startswith(f"{other}/") for other in NOT_SERVED)


def test_discovery(server: Server) -> None:
    found: dict[str, Any] = {}
    for path in ("/api", "/apis"):
        accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        for group in server.call("GET", path, accept=accept).body["items"]:
            for version in group["versions"]:
                for resource in version["resources"]:
                    start = f"{group['metadata'].get('name', '')}/{version['version']}/{resource['resource']}".lstrip(
                        "/"
                    )
                    found[start] = resource
                    found |= {f"{start}/{item['subresource']}": item for item in resource.get("subresources") or ()}
    recorded = {line["resource"]: line for line in LINES if "resource" in line}
    for name, wanted in recorded.items():
        if not _is_served(name):
            assert name not in found, "served after all: take it off the list"
            continue
        assert name in found
        for key, value in wanted.items():
            if key != "resource":
                assert _sorted(found[name].get(key)) == _sorted(value), (name, key)


def _sorted(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def test_columns(server: Server) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    for line in LINES:
        if "columns" not in line or not _is_served(line["columns"]):
            continue
        group_version, _, plural = line["columns"].rpartition("/")
        base = "/api" if group_version == "v1" else "/apis"
        table = server.call("GET", f"{base}/{group_version}/{plural}", accept=accept).body
        # Upstream's descriptions document its own code; they are not repeated here.
        found = [[item[key] for key in ("name", "type", "format", "priority")] for item in table["columnDefinitions"]]
        assert found == line["are"], line["columns"]


@pytest.fixture(scope="module")
def paths(server: Server) -> dict[str, str]:
    """The paths of every OpenAPI document, with their methods."""
    found: dict[str, str] = {}
    for document in server.call("GET", "/openapi/v3").body["paths"].values():
        for path, item in server.call("GET", document["serverRelativeURL"]).body["paths"].items():
            found[path] = " ".join(sorted(item))
    return found


def test_paths_of_openapi(paths: dict[str, str]) -> None:
    def served(path: str) -> bool:
        words = path.removeprefix("/apis/").removeprefix("/api/").replace("/watch/", "/")
        return not any(
            words.startswith((name, name.replace("v1/", "v1/namespaces/{namespace}/"))) for name in NOT_SERVED
        )

    for line in LINES:
        if "path" in line and served(line["path"]):
            assert paths.get(line["path"]) == line["methods"], line["path"]
