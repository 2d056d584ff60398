"""The access log, the metrics and the health of the registry."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.registry.login_server import AcrRegistry


def test_the_access_log_has_the_principal_and_no_secret(acr: AcrRegistry, repository: str) -> None:
    user, password = acr.admin()
    token = acr.token(user, password, f"repository:{repository}:pull,push")
    digest = acr.push(repository, "v1", token=token)
    for _ in range(3):
        assert acr.manifest(repository, "v1", token=token, headers={"User-Agent": "it\n"[:2]}).status == 200
    assert acr.manifest(repository, "v1").status == 401
    acr.cloud.stop("registry")  # writes the rest of the log
    acr.cloud.start("registry")
    log = acr.cloud.log("registry")
    assert password not in log
    assert token not in log
    lines = _lines(log, f"/v2/{repository}/manifests/v1")
    assert [(line["status"], line["principal"]) for line in lines] == [
        (201, user), (200, user), (200, user), (200, user), (401, ""),
    ]  # fmt: skip
    pulled = lines[1]
    assert pulled["scope"] == f"repository:{repository}:pull"
    assert pulled["client"] == "127.0.0.1"
    assert pulled["user_agent"] == "it"
    assert pulled["host"] == acr.server
    assert pulled["bytes"] > 100
    assert pulled["complete"] is True
    assert pulled["seconds"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", pulled["time"])
    assert {line["message"].split()[0] for line in _lines(log, f"/v2/{repository}/blobs/uploads/")} == {"POST"}
    assert digest


def test_metrics_count_requests(acr: AcrRegistry, repository: str) -> None:
    token = acr.admin_token(f"repository:{repository}:pull,push")
    acr.push(repository, "v1", token=token)
    before = _metrics(acr)
    for _ in range(5):
        acr.manifest(repository, "v1", token=token)
    after = _metrics(acr)
    counter = 'registry_requests_total{method="GET",status="200"}'
    assert after[counter] - before.get(counter, 0.0) == 5
    for name in ("registry_request_seconds_count", 'registry_request_seconds_bucket{le="+Inf"'):
        grown = {key: value - before.get(key, 0.0) for key, value in after.items() if key.startswith(name)}
        assert sum(value for key, value in grown.items() if 'method="GET"' in key) == 5
    assert after["process_resident_memory_bytes"] > 0
    size = len(acr.call("GET", f"/v2/{repository}/manifests/v1", token=token, headers={"Range": "x"}).body)
    sent = 'registry_sent_bytes_total{method="GET"}'
    assert size
    assert after[sent] > before.get(sent, 0.0)


def test_unknown_methods_share_one_metric(acr: AcrRegistry) -> None:
    assert acr.call("PROPFIND", "/v2/a/tags/list").status == 401
    assert 'registry_requests_total{method="other",status="401"}' in _metrics(acr)


def test_it_is_alive_and_ready(acr: AcrRegistry) -> None:
    for path in ("/healthz", "/readyz"):
        assert acr.cloud.call("registry", "GET", path).status == 200


def _lines(log: str, path: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines()]
    return [line for line in lines if line["logger"] == "access" and line["message"].split()[1] == path]


def _metrics(acr: AcrRegistry) -> dict[str, float]:
    text = acr.cloud.call("registry", "GET", "/metrics", show="metrics").body.decode()
    pairs = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}
