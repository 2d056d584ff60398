"""What a PUT brings is checked before anything is stored, and no header is made of what came in."""

from __future__ import annotations

import http.client
from typing import Any

import pytest

from tests.cloud import Cloud

LOCATIONS = [
    "eastus\r\nX-Injected: 1",
    "eastus\n",
    "east\0us",
    "eastus/../..",
    "eastus?x",
    "\N{LATIN SMALL LETTER E WITH ACUTE}astus",
    "ea\N{LATIN SMALL LETTER LONG S}tus",
    "\N{FULLWIDTH LATIN SMALL LETTER E}astus",
    "eastus\N{RIGHT-TO-LEFT OVERRIDE}",
    "moon",
    "x" * 10_000,
]
TAGS: list[Any] = [
    {"a\r\nb": "c"},
    {"a": "b\r\nX-Injected: 1"},
    {"a": "\0"},
    {"a<b": "c"},
    {"a/b": "c"},
    {"a\\b": "c"},
    {"": "c"},
    {"x" * 513: "c"},
    {"a": "x" * 257},
    {f"tag{number}": "" for number in range(51)},
    {"a": None},
    {"a": 5},
    {"a": {"b": "c"}},
    ["a"],
    "a",
]


def _paths(cloud: Cloud, group: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """An id that nothing has, of each type of resource with a location, and what it takes beside."""
    providers = f"{group}/providers"
    return {
        "group": (f"{cloud.subscription}/resourceGroups/strings", {}),
        "registry": (f"{providers}/Microsoft.ContainerRegistry/registries/strings", {"sku": {"name": "Basic"}}),
        "identity": (f"{providers}/Microsoft.ManagedIdentity/userAssignedIdentities/strings", {}),
    }


@pytest.mark.parametrize("kind", ["group", "registry", "identity"])
def test_a_location_is_a_region(cloud: Cloud, group: str, kind: str) -> None:
    path, body = _paths(cloud, group)[kind]
    for location in LOCATIONS:
        answer = cloud.arm("PUT", path, {"location": location, **body})
        assert answer.status == 400, (location[:40], answer.body)
        assert answer.code in ("LocationNotAvailableForResourceType", "LocationNotAvailableForResourceGroup")
        assert "X-Injected" not in answer.headers
    for other in ("", None, 5, ["eastus"], {"a": "b"}, True):
        assert cloud.arm("PUT", path, {"location": other, **body}).code == "LocationRequired", other
    assert cloud.arm("GET", path).status == 404


@pytest.mark.parametrize("kind", ["group", "registry", "identity"])
def test_a_location_is_kept_in_its_one_form_and_stays(cloud: Cloud, group: str, kind: str) -> None:
    path, body = _paths(cloud, group)[kind]
    path += "placed"
    made = cloud.arm("PUT", path, {"location": "West US 2", **body})
    assert (made.status, made.body["location"]) == (201, "westus2")
    assert cloud.arm("PUT", path, {"location": "WESTUS2", **body}).status == 200
    assert cloud.arm("PUT", path, {"location": "eastus", **body}).status == 409
    assert cloud.arm("GET", path).body["location"] == "westus2"


@pytest.mark.parametrize("kind", ["group", "registry", "identity"])
def test_tags_are_azures(cloud: Cloud, group: str, kind: str) -> None:
    path, body = _paths(cloud, group)[kind]
    path += "tagged"
    for tags in TAGS:
        answer = cloud.arm("PUT", path, {"location": "eastus", "tags": tags, **body})
        assert answer.status == 400, (str(tags)[:40], answer.body)
    assert cloud.arm("GET", path).status == 404
    assert cloud.arm("PUT", path, {"location": "eastus", "tags": {"a-b c": "x/y <z>"}, **body}).status == 201
    for tags in TAGS:
        assert cloud.arm("PATCH", path, {"tags": tags}).status == 400, str(tags)[:40]
    assert cloud.arm("GET", path).body["tags"] == {"a-b c": "x/y <z>"}


@pytest.mark.parametrize(
    "name", ["a%0d%0ab", "a%00b", "%E2%80%AEab", "strings%20", "%C5%BFtrings", "a" * 200, "..%2f..", "a;b", "a'b"]
)
def test_names_that_nothing_has(cloud: Cloud, group: str, name: str) -> None:
    for kind in ("registry", "identity"):
        path, body = _paths(cloud, group)[kind]
        answer = cloud.arm("PUT", path.replace("strings", name), {"location": "eastus", **body})
        assert answer.status in (400, 404), (kind, name, answer.body)
    children = f"{group}/providers/Microsoft.ContainerRegistry/registries/{'r' * 10}"
    for child in ("tokens", "scopeMaps", "webhooks", "cacheRules", "credentialSets"):
        assert cloud.arm("PUT", f"{children}/{child}/{name}", {}).status in (400, 404)


@pytest.mark.parametrize(
    "host", ["evil.example", "a b", 'x"', "x/y", "x\\y", "x@y", "x?y", "[::1", "\xff", "x" * 300, "%0d%0a"]
)
def test_the_host_of_a_request_makes_no_other_links(cloud: Cloud, group: str, host: str) -> None:
    """A link names the host that the caller used, where it is one, and else the front door's own."""
    address = cloud.config.addresses["arm"]
    path = f"{cloud.subscription}/resourceGroups?$top=1"
    connection = http.client.HTTPSConnection(address.host, address.port, context=cloud.tls("arm"), timeout=30)
    try:
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host.encode("latin-1"))
        connection.putheader("Authorization", f"Bearer {cloud.token()}")
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status < 500
        if answer.status == 200 and "nextLink" in text and host != "evil.example":
            assert f"{address.host}:{address.port}/subscriptions" in text
    finally:
        connection.close()
