"""Lists of tags, repositories and referrers, and deletion (OCI Distribution 1.1, end-3, end-8, end-9, end-12)."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.registry.client import EMPTY, INDEX, Answer, Registry, descriptor, digest_of, image

ABSENT = digest_of(b"never pushed")


def pages(registry: Registry, path: str, field: str) -> list[list[Any]]:
    """All pages of a list, by following its links."""
    found = []
    while path:
        answer = registry.call("GET", path)
        assert answer.status == 200, answer
        found.append(answer.json[field])
        link = answer.headers.get("Link")
        match = re.fullmatch(r'<(/[^>]+)>; rel="next"', link) if link else None
        assert match or not link, link
        path = match[1] if match else ""
    return found


def flat(found: list[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(found))


@pytest.fixture
def tagged(registry: Registry, repository: str) -> str:
    """A repository with five tags."""
    registry.push_image(repository, "b")
    for tag in ("a", "c", "B", "_1"):
        registry.put(repository, tag, image())
    return repository


def test_tags_are_listed_in_order(registry: Registry, tagged: str) -> None:
    answer = registry.call("GET", f"/v2/{tagged}/tags/list")
    assert answer.status == 200
    assert "Link" not in answer.headers
    assert answer.json == {"name": tagged, "tags": ["B", "_1", "a", "b", "c"]}


@pytest.mark.parametrize(("n", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (6, [5]), (10**8, [5])])
def test_tags_come_in_pages(registry: Registry, tagged: str, n: int, sizes: list[int]) -> None:
    found = pages(registry, f"/v2/{tagged}/tags/list?n={n}", "tags")
    assert [len(page) for page in found] == sizes
    assert flat(found) == ["B", "_1", "a", "b", "c"]


def test_a_page_starts_after_last_even_if_it_does_not_exist(registry: Registry, tagged: str) -> None:
    for last, expected in (
        ("a", ["b", "c"]),
        ("aa", ["b", "c"]),
        ("c", []),
        ("zz", []),
        ("", ["B", "_1", "a", "b", "c"]),
    ):
        assert registry.call("GET", f"/v2/{tagged}/tags/list?last={last}").json["tags"] == expected
    assert registry.call("GET", f"/v2/{tagged}/tags/list?n=1&last=_1").json["tags"] == ["a"]


def test_a_page_of_zero_entries_has_no_link(registry: Registry, tagged: str) -> None:
    answer = registry.call("GET", f"/v2/{tagged}/tags/list?n=0")
    assert (answer.status, answer.json["tags"]) == (200, [])
    assert "Link" not in answer.headers


@pytest.mark.parametrize("path", ["/v2/{0}/tags/list", "/v2/_catalog"])
@pytest.mark.parametrize(
    "query", ["n=-1", "n=x", "n=", "n=1.5", "n=+1", "n=%20", "n=9999999999", "n=%C2%B2", "last=%00"]
)
def test_invalid_pages(registry: Registry, tagged: str, path: str, query: str) -> None:
    answer = registry.call("GET", f"{path.format(tagged)}?{query}")
    assert answer.status == 400
    assert answer.code == ("NAME_INVALID" if "last" in query else "PAGINATION_NUMBER_INVALID")


def test_empty_and_unknown_repositories(registry: Registry, repository: str) -> None:
    registry.push_blob(repository, b"only a blob")
    assert registry.call("GET", f"/v2/{repository}/tags/list").json == {"name": repository, "tags": []}
    answer = registry.call("GET", f"/v2/{repository}/nothing/tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


def test_repositories_are_listed_in_order_and_in_pages(make_registry: Callable[[], Registry]) -> None:
    registry = make_registry()
    assert registry.call("GET", "/v2/_catalog").json == {"repositories": []}
    names = ["a", "a/b", "a/b/c", "a-b", "z0"]
    for name in names:
        registry.push_image(name, "v1")
    registry.push_blob("only-a-blob", b"x")
    expected = sorted(names)
    for n in (1, 2, 3, 5, 100):
        found = pages(registry, f"/v2/_catalog?n={n}", "repositories")
        assert flat(found) == expected
        assert max(len(page) for page in found) <= n
    assert registry.call("GET", "/v2/_catalog?last=a/b").json["repositories"] == ["a/b/c", "z0"]


def test_the_largest_page_is_a_setting(strict: Registry) -> None:
    for number in range(5):
        strict.push_image(f"pages/{number}", "v1")
        strict.push_image("pages/0", f"v{number}")
    for path, field in (("/v2/_catalog", "repositories"), ("/v2/pages/0/tags/list", "tags")):
        for query in ("", "?n=1000"):
            found = pages(strict, path + query, field)
            assert len(found[0]) == 3
            assert len(flat(found)) >= 5


# Deletion.


def test_deleting_a_tag_keeps_its_manifest(registry: Registry, tagged: str) -> None:
    digest = registry.call("GET", f"/v2/{tagged}/manifests/a").digest
    assert registry.call("DELETE", f"/v2/{tagged}/manifests/a").status == 202
    assert registry.call("GET", f"/v2/{tagged}/manifests/a").code == "MANIFEST_UNKNOWN"
    assert registry.call("DELETE", f"/v2/{tagged}/manifests/a").status == 404
    assert registry.call("GET", f"/v2/{tagged}/manifests/{digest}").status == 200
    assert "a" not in registry.call("GET", f"/v2/{tagged}/tags/list").json["tags"]


def test_a_manifest_is_deleted_with_its_tags(registry: Registry, tagged: str) -> None:
    digest = registry.call("GET", f"/v2/{tagged}/manifests/a").digest
    assert registry.call("DELETE", f"/v2/{tagged}/manifests/{digest}").status == 202
    for reference in (digest, "a", "b"):
        assert registry.call("GET", f"/v2/{tagged}/manifests/{reference}").status == 404
        assert registry.call("DELETE", f"/v2/{tagged}/manifests/{reference}").status == 404
    assert registry.call("GET", f"/v2/{tagged}/tags/list").json["tags"] == []
    assert tagged not in flat(pages(registry, "/v2/_catalog", "repositories"))


def test_a_deleted_manifest_is_pushed_again(registry: Registry, repository: str) -> None:
    for _ in range(2):
        digest = registry.push_image(repository, "v1")
        assert registry.call("DELETE", f"/v2/{repository}/manifests/{digest}").status == 202


# Referrers.


def referrers(registry: Registry, repository: str, digest: str, artifact_type: str = "") -> tuple[Answer, set[str]]:
    query = f"?artifactType={artifact_type}" if artifact_type else ""
    answer = registry.call("GET", f"/v2/{repository}/referrers/{digest}{query}")
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == INDEX
    assert answer.headers.get("OCI-Filters-Applied") == ("artifactType" if artifact_type else None)
    assert (answer.json["schemaVersion"], answer.json["mediaType"]) == (2, INDEX)
    return answer, {entry["digest"] for entry in answer.json["manifests"]}


def attach(registry: Registry, repository: str, subject: str, **fields: Any) -> str:
    """Push an artifact with the subject `subject` and return its digest."""
    registry.push_blob(repository, b"{}")
    empty = descriptor(b"{}", EMPTY)
    about = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1}
    document = image(**{"config": empty, "layers": [empty], "subject": about, **fields})
    answer = registry.put(repository, digest_of(json.dumps(document).encode()), document)
    assert answer.status == 201, answer
    assert answer.headers["OCI-Subject"] == subject
    return answer.digest


def test_referrers_are_listed_and_filtered_by_type(registry: Registry, repository: str) -> None:
    subject = registry.push_image(repository, "v1")
    signature = attach(registry, repository, subject, artifactType="application/vnd.example.signature")
    bill = attach(
        registry, repository, subject, artifactType="application/vnd.example.sbom", annotations={"tool": "x"}
    )
    answer, found = referrers(registry, repository, subject)
    assert found == {signature, bill}
    (entry,) = [entry for entry in answer.json["manifests"] if entry["digest"] == bill]
    size = int(registry.call("HEAD", f"/v2/{repository}/manifests/{bill}").headers["Content-Length"])
    assert entry == {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": bill,
        "size": size,
        "artifactType": "application/vnd.example.sbom",
        "annotations": {"tool": "x"},
    }
    assert referrers(registry, repository, subject, "application/vnd.example.sbom")[1] == {bill}
    assert referrers(registry, repository, subject, "application/vnd.example.none")[1] == set()


def test_the_config_gives_the_default_artifact_type(registry: Registry, repository: str) -> None:
    subject = registry.push_image(repository, "v1")
    typed = attach(registry, repository, subject, config=descriptor(b"{}", "application/vnd.example.config"))
    assert referrers(registry, repository, subject, "application/vnd.example.config")[1] == {typed}


def test_an_index_may_refer_too(registry: Registry, repository: str) -> None:
    subject = registry.push_image(repository, "v1")
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "artifactType": "application/vnd.example.set",
        "manifests": [],
        "subject": {"mediaType": INDEX, "digest": subject, "size": 1},
    }
    answer = registry.put(repository, "set", document)
    assert answer.headers["OCI-Subject"] == subject
    assert referrers(registry, repository, subject, "application/vnd.example.set")[1] == {answer.digest}


def test_a_subject_need_not_exist(registry: Registry, repository: str) -> None:
    signature = attach(registry, repository, ABSENT)
    assert referrers(registry, repository, ABSENT)[1] == {signature}
    subject = registry.push_image(repository, "v1")
    other = attach(registry, repository, subject)
    registry.call("DELETE", f"/v2/{repository}/manifests/{subject}")
    assert referrers(registry, repository, subject)[1] == {other}


def test_a_deleted_referrer_is_not_listed(registry: Registry, repository: str) -> None:
    subject = registry.push_image(repository, "v1")
    signature = attach(registry, repository, subject)
    registry.call("DELETE", f"/v2/{repository}/manifests/{signature}")
    assert referrers(registry, repository, subject)[1] == set()


def test_without_referrers_the_index_is_empty(registry: Registry, repository: str) -> None:
    assert referrers(registry, repository, ABSENT)[1] == set()
    for digest in ("sha256:x", "v1", "md5:" + "0" * 32):
        answer = registry.call("GET", f"/v2/{repository}/referrers/{digest}")
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_referrers_come_in_pages_that_keep_the_filter(strict: Registry, repository: str) -> None:
    subject = strict.push_image(repository, "v1")
    kind = "application/vnd.example.many"
    expected = {
        attach(strict, repository, subject, artifactType=kind, annotations={"n": str(number)}) for number in range(7)
    }
    attach(strict, repository, subject, artifactType="application/vnd.example.other")
    found = pages(strict, f"/v2/{repository}/referrers/{subject}?artifactType={kind}", "manifests")
    assert [len(page) for page in found] == [3, 3, 1]
    assert {entry["digest"] for page in found for entry in page} == expected


# The root, unsupported methods and unknown paths.


def test_the_root_reports_the_api_version(registry: Registry) -> None:
    for path in ("/v2/", "/v2"):
        answer = registry.call("GET", path)
        assert (answer.status, answer.json) == (200, {})
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/x/tags/list"),
        ("PUT", "/v2/x/blobs/" + ABSENT),
        ("PATCH", "/v2/x/manifests/v1"),
        ("GET", "/v2/x/blobs/uploads/"),
        ("PUT", "/v2/x/referrers/" + ABSENT),
        ("DELETE", "/v2/_catalog"),
        ("OPTIONS", "/v2/x/manifests/v1"),
    ],
)
def test_unsupported_methods(registry: Registry, method: str, path: str) -> None:
    answer = registry.call(method, path)
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")


@pytest.mark.parametrize("path", ["/v2/x", "/v2/x/", "/v2/x/tags", "/v2/tags/list", "/v2/x/manifests/", "/v2//"])
def test_unknown_paths_are_404(registry: Registry, path: str) -> None:
    answer = registry.call("GET", path)
    assert (answer.status, answer.code) == (404, "NAME_INVALID")
