"""Quota, retention, soft delete and collection of a registry, through Azure Resource Manager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cumulet.common import config as settings
from tests.registry.client import Registry, digest_of, image, noise


def test_a_quota_counts_each_blob_once(make_registry: Callable[[], Registry]) -> None:
    registry = make_registry()
    registry.update(policies={"quotaPolicy": {"status": "enabled", "bytes": 10_000}})
    digest = registry.push_blob("a", noise(6_000))
    assert registry.usage == 6_000
    over = noise(6_000, seed=1)
    location = registry.start("a")
    for answer in (
        registry.call("POST", f"/v2/a/blobs/uploads/?digest={digest_of(over)}", over),
        registry.call("PATCH", location, iter([over])),
        registry.call("PUT", f"{registry.start('a')}?digest={digest_of(over)}", over),
    ):
        assert (answer.status, answer.code) == (403, "DENIED")
        assert answer.json["errors"][0]["detail"] == {"usedBytes": 6_000, "quotaBytes": 10_000}
    assert registry.call("GET", location).status == 404
    assert registry.call("HEAD", f"/v2/a/blobs/{digest_of(over)}").status == 404
    assert registry.call("POST", f"/v2/b/blobs/uploads/?mount={digest}&from=a").status == 201
    assert registry.usage == 6_000
    registry.push_image("a", "v1")
    padded = image(annotations={"pad": "x" * 5_000})
    answer = registry.put("a", "v2", padded)
    assert (answer.status, answer.code) == (403, "DENIED")
    assert registry.call("GET", "/v2/a/manifests/v2").status == 404
    registry.update(policies={"quotaPolicy": {"status": "disabled"}})
    assert registry.put("a", "v2", padded).status == 201


def test_concurrent_pushes_stay_within_the_quota(make_registry: Callable[[], Registry]) -> None:
    registry = make_registry()
    registry.update(policies={"quotaPolicy": {"status": "enabled", "bytes": 10_000}})
    locations = [registry.start("a") for _ in range(2)]
    blobs = [noise(6_000, seed=number) for number in range(2)]
    for location, blob in zip(locations, blobs, strict=True):
        assert registry.call("PATCH", location, blob).status == 202
    answers = [
        registry.call("PUT", f"{location}?digest={digest_of(blob)}")
        for location, blob in zip(locations, blobs, strict=True)
    ]
    assert [answer.status for answer in answers] == [201, 403]
    assert registry.usage == 6_000


@pytest.mark.parametrize(
    "policies",
    [
        1,
        {"retentionPolicy": 1},
        {"retentionPolicy": {"days": -1}},
        {"retentionPolicy": {"days": 366}},
        {"retentionPolicy": {"days": "7"}},
        {"retentionPolicy": {"status": "maybe"}},
        {"softDeletePolicy": {"retentionDays": True}},
        {"quotaPolicy": {"bytes": -1}},
        {"quotaPolicy": {"status": 1}},
    ],
    ids=json.dumps,
)
def test_invalid_policies_are_refused(registry: Registry, policies: object) -> None:
    path = f"{registry.id}?api-version=2023-07-01"
    answer = registry.cloud.arm("PATCH", path, {"properties": {"policies": policies}})
    assert answer.status == 400
    assert answer.code == "InvalidRequestContent"


@pytest.mark.parametrize(
    "properties",
    [
        {"policies": {"quarantinePolicy": {"status": "enabled"}}},
        {"policies": {"trustPolicy": {"status": "enabled"}}},
        {"policies": {"exportPolicy": {"status": "disabled"}}},
        {"policies": {"azureADAuthenticationAsArmPolicy": {"status": "disabled"}}},
        {"publicNetworkAccess": "Disabled"},
        {"networkRuleSet": {"defaultAction": "Deny"}},
    ],
    ids=json.dumps,
)
def test_unsupported_properties_are_refused(registry: Registry, properties: object) -> None:
    path = f"{registry.id}?api-version=2023-07-01"
    before = registry.cloud.arm("GET", path).body
    answer = registry.cloud.arm("PATCH", path, {"properties": properties})
    assert (answer.status, answer.code) == (400, "NotSupported")
    assert registry.cloud.arm("PUT", path, before).body == before  # a response is a valid request


def test_policies_are_shown(make_registry: Callable[[], Registry]) -> None:
    registry = make_registry()
    registry.update(policies={"retentionPolicy": {"status": "enabled", "days": 3}})
    registry.update(policies={"softDeletePolicy": {"status": "enabled", "retentionDays": 5}})
    shown = registry.cloud.arm("GET", f"{registry.id}?api-version=2023-07-01").body["properties"]["policies"]
    assert shown["retentionPolicy"] == {"days": 3, "status": "enabled"}
    assert shown["softDeletePolicy"] == {"retentionDays": 5, "status": "enabled"}


def test_limits_are_settings(strict: Registry, repository: str) -> None:
    large = noise(100_001)
    for body in (large, iter([large])):
        for method, path in (("POST", f"/v2/{repository}/blobs/uploads/"), ("PUT", strict.start(repository))):
            answer = strict.call(method, f"{path}?digest={digest_of(large)}", body)
            assert (answer.status, answer.code) == (413, "SIZE_INVALID")
            body = large  # the iterator is exhausted
    location = strict.start(repository)
    assert strict.call("PATCH", location, large[:100_000]).status == 202
    assert strict.call("PATCH", location, b"x").status == 413
    strict.push_image(repository, "v1")
    answer = strict.put(repository, "v2", image(annotations={"pad": "x" * 5_000}))
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")


def test_retention_and_collection(strict: Registry, repository: str) -> None:
    strict.collect()
    moved = strict.push_image(repository, "v1", seed=repository)
    kept = strict.push_image(repository, "v1", seed=f"{repository} new")
    strict.update(policies={"retentionPolicy": {"status": "enabled", "days": 0}})
    foreseen = strict.collect(dry_run=True)
    assert foreseen["untaggedManifests"] == 1
    assert strict.call("GET", f"/v2/{repository}/manifests/{moved}").status == 200
    report = strict.collect()
    assert report == {**foreseen, "dryRun": False}
    assert report["blobs"] == 2
    assert strict.call("GET", f"/v2/{repository}/manifests/{moved}").status == 404
    assert strict.call("HEAD", f"/v2/{repository}/blobs/{digest_of(f'layer {repository}'.encode())}").status == 404
    assert strict.call("GET", f"/v2/{repository}/manifests/{kept}").status == 200
    assert (
        strict.call("HEAD", f"/v2/{repository}/blobs/{digest_of(f'layer {repository} new'.encode())}").status == 200
    )
    assert strict.collect()["blobs"] == 0
    strict.update(policies={"retentionPolicy": {"status": "disabled"}})


def test_a_soft_deleted_manifest_keeps_its_bytes_until_it_is_pushed_again(
    make_registry: Callable[[], Registry],
) -> None:
    registry = make_registry()
    registry.update(policies={"softDeletePolicy": {"status": "enabled", "retentionDays": 7}})
    digest = registry.push_image("a", "v1")
    held = registry.usage
    assert registry.call("DELETE", f"/v2/a/manifests/{digest}").status == 202
    assert registry.call("GET", "/v2/a/manifests/v1").status == 404
    assert registry.call("GET", "/v2/_catalog").json["repositories"] == []
    assert registry.usage == held
    assert registry.put("a", "v1", image()).digest == digest
    assert registry.usage == held
    assert registry.call("GET", "/v2/a/manifests/v1").digest == digest
    deleted = registry.call("GET", "/acr/v1/_deleted/a/_manifests")
    assert digest not in deleted.body.decode()


def test_deleting_a_registry_frees_its_bytes(make_registry: Callable[[], Registry]) -> None:
    registry, other = make_registry(), make_registry()
    shared, own = noise(5_000, seed=11), noise(5_000, seed=12)
    other.push_blob("a", shared)
    registry.push_blob("a", shared)
    digest = registry.push_blob("a", own)
    blobs = registry.cloud.config.room_dir("registry") / "content" / "blobs"
    assert (blobs / digest.replace(":", "/")).exists()
    assert registry.cloud.arm("DELETE", f"{registry.id}?api-version=2023-07-01").status == 200
    while (blobs / digest.replace(":", "/")).exists():
        other.collect(dry_run=True)  # waits for the running collection
    assert other.call("GET", f"/v2/a/blobs/{digest_of(shared)}").body == shared


@pytest.fixture
def command(strict: Registry, tmp_path: Path) -> Callable[..., Any]:
    """Runs `cumulet` with the strict registry's room."""
    settings.save(strict.cloud.config)

    def run(*arguments: str) -> Any:
        environment = {**os.environ, "CUMULET_DATA_DIR": str(strict.cloud.config.data_dir)}
        program = Path(sys.executable).with_name("cumulet")
        done = subprocess.run(
            [program, *arguments], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return json.loads(done.stdout)

    return run


def test_the_command_collects(strict: Registry, repository: str, command: Callable[..., Any]) -> None:
    strict.collect()
    digest = strict.push_blob(repository, repository.encode())
    for options, there in ((["--dry-run"], 200), ([strict.name], 404)):
        (row,) = command("registry", "gc", *options, "--output", "json")
        assert row["registry"] == strict.name
        assert row["dryRun"] == ("--dry-run" in options)
        assert (row["blobs"], row["bytes"]) == (1, len(repository))
        assert strict.call("HEAD", f"/v2/{repository}/blobs/{digest}").status == there


def test_a_collection_requires_a_right_on_the_registry(registry: Registry) -> None:
    reader = registry.cloud.principal("gc reader", Reader=registry.id)
    path = f"{registry.id}/collectGarbage?api-version=2023-07-01"
    assert registry.cloud.arm("POST", path, {}, as_=reader).status == 403
    assert registry.cloud.arm("POST", path, {"dryRun": "yes"}).status == 400
    assert registry.cloud.arm("POST", path.replace(registry.name, "nowhere"), {}).status == 404
