"""Any sequence of pushes, mounts and deletions matches a model of sets and dictionaries."""

from __future__ import annotations

import itertools
import json
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.registry.client import IMAGE, Registry, descriptor, digest_of

_runs = itertools.count()

names = st.sampled_from(["one", "two/deep"])
contents = st.sampled_from([b"", b"x", b"y" * 3000])
tags = st.sampled_from(["v1", "v2", "latest"])
algorithms = st.sampled_from(["sha256", "sha512"])


class Model(RuleBasedStateMachine):
    """Two repositories of one registry, and the model of their content."""

    registry: ClassVar[Registry]

    @initialize()
    def begin(self) -> None:
        self.run = next(_runs)
        self.blobs: dict[str, dict[str, bytes]] = {name: {} for name in ("one", "two/deep")}
        self.manifests: dict[str, dict[str, bytes]] = {name: {} for name in self.blobs}
        self.tags: dict[str, dict[str, str]] = {name: {} for name in self.blobs}
        self.known: set[str] = set()

    def path(self, name: str, rest: str) -> str:
        return f"/v2/model{self.run}/{name}/{rest}"

    @rule(name=names, content=contents, algorithm=algorithms, chunks=st.integers(0, 3), right=st.booleans())
    def push_a_blob(self, name: str, content: bytes, algorithm: str, chunks: int, right: bool) -> None:
        digest = digest_of(content, algorithm)
        named = digest if right else digest_of(content + b"!", algorithm)
        location = self.registry.call("POST", self.path(name, "blobs/uploads/")).location
        step = len(content) // (chunks + 1) + 1
        first = 0
        for _ in range(chunks):
            piece = content[first : first + step]
            if piece:
                span = f"{first}-{first + len(piece) - 1}"
                assert self.registry.call("PATCH", location, piece, content_range=span).status == 202
            first += len(piece)
        answer = self.registry.call("PUT", f"{location}?digest={named}", content[first:])
        if right:
            assert answer.status == 201
            self.blobs[name][digest] = content
            self.known.add(name)
        else:
            assert (answer.status, answer.code) == (400, "DIGEST_INVALID")

    @rule(name=names, source=names, content=contents, algorithm=algorithms)
    def mount_a_blob(self, name: str, source: str, content: bytes, algorithm: str) -> None:
        digest = digest_of(content, algorithm)
        query = f"blobs/uploads/?mount={digest}&from=model{self.run}/{source}"
        answer = self.registry.call("POST", self.path(name, query))
        assert answer.status == (201 if digest in self.blobs[source] else 202)
        if answer.status == 201:
            self.blobs[name][digest] = content
            self.known.add(name)

    @rule(name=names, content=contents, algorithm=algorithms)
    def delete_a_blob(self, name: str, content: bytes, algorithm: str) -> None:
        digest = digest_of(content, algorithm)
        answer = self.registry.call("DELETE", self.path(name, f"blobs/{digest}"))
        assert answer.status == (202 if self.blobs[name].pop(digest, None) is not None else 404)

    @rule(
        name=names,
        parts=st.lists(contents, min_size=1, max_size=2),
        tag=tags,
        algorithm=algorithms,
        by_tag=st.booleans(),
    )
    def push_a_manifest(self, name: str, parts: list[bytes], tag: str, algorithm: str, by_tag: bool) -> None:
        config, *layers = [descriptor(part, "application/vnd.example") for part in parts]
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers}
        body = json.dumps(document).encode()
        digest = digest_of(body, algorithm)
        reference = f"{tag}?digest={digest}" if by_tag else digest
        answer = self.registry.put(f"model{self.run}/{name}", reference, body)
        if any(digest_of(part) not in self.blobs[name] for part in parts):
            assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
            return
        assert (answer.status, answer.digest) == (201, digest)
        self.manifests[name][digest] = body
        self.known.add(name)
        if by_tag:
            self.tags[name][tag] = digest

    @rule(name=names, tag=tags)
    def delete_a_tag(self, name: str, tag: str) -> None:
        answer = self.registry.call("DELETE", self.path(name, f"manifests/{tag}"))
        assert answer.status == (202 if self.tags[name].pop(tag, None) else 404)

    @precondition(lambda self: any(self.manifests.values()))
    @rule(data=st.data())
    def delete_a_manifest(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name in self.manifests if self.manifests[name]]))
        digest = data.draw(st.sampled_from(sorted(self.manifests[name])))
        for status in (202, 404):
            assert self.registry.call("DELETE", self.path(name, f"manifests/{digest}")).status == status
        del self.manifests[name][digest]
        self.tags[name] = {tag: named for tag, named in self.tags[name].items() if named != digest}

    @rule(name=names, content=contents, algorithm=algorithms)
    def pull_a_blob(self, name: str, content: bytes, algorithm: str) -> None:
        digest = digest_of(content, algorithm)
        answer = self.registry.call("GET", self.path(name, f"blobs/{digest}"))
        if digest in self.blobs[name]:
            assert (answer.status, answer.body) == (200, content)
        else:
            assert answer.status == 404

    @rule(name=names)
    def list_the_tags(self, name: str) -> None:
        answer = self.registry.call("GET", self.path(name, "tags/list"))
        assert answer.status == (200 if name in self.known else 404)
        if name in self.known:
            assert answer.json["tags"] == sorted(self.tags[name])

    def teardown(self) -> None:
        for name in getattr(self, "blobs", {}):
            self.list_the_tags(name)
            for digest, content in self.blobs[name].items():
                assert self.registry.call("GET", self.path(name, f"blobs/{digest}")).body == content
            for reference, digest in {**self.tags[name], **{d: d for d in self.manifests[name]}}.items():
                answer = self.registry.call("GET", self.path(name, f"manifests/{reference}"))
                assert (answer.digest, answer.body) == (digest, self.manifests[name][digest])


@pytest.fixture(autouse=True)
def of_the_model(registry: Registry) -> None:
    Model.registry = registry


Model.TestCase.settings = settings(max_examples=6, stateful_step_count=20, deadline=None)
test_model = Model.TestCase
