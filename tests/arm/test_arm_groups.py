"""Resource groups and generic lists, over HTTP as any client of Azure Resource Manager sees them."""

from __future__ import annotations

from tests.cloud import Cloud


def test_a_group_lives(cloud: Cloud) -> None:
    path = f"{cloud.subscription}/resourceGroups/lives"
    made = cloud.arm("PUT", path, {"location": "East US", "tags": {"a": "b"}})
    assert made.status == 201
    assert made.body["location"] == "eastus"
    assert made.body["properties"] == {"provisioningState": "Succeeded"}
    assert cloud.arm("PUT", path, {"location": "eastus"}).status == 200
    assert cloud.arm("GET", path.upper().replace("/LIVES", "/Lives")).body["name"] == "lives"
    assert cloud.arm("HEAD", path).status == 204
    assert cloud.arm("PATCH", path, {"tags": {"c": "d"}}).body["tags"] == {"c": "d"}
    assert cloud.arm("DELETE", path).status == 200
    assert cloud.arm("HEAD", path).status == 404
    assert cloud.arm("GET", path).code == "ResourceGroupNotFound"
