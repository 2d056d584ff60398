"""What goes with its owner, and what becomes of a namespace."""

from __future__ import annotations

import pytest

from tests.cloud import Cloud
from tests.controllers.space import Object, Space, condition, workload


def _map(name: str, *owners: Object, kind: str = "ConfigMap", block: bool = False) -> Object:
    """A config map that hangs on others."""
    references = [
        {
            "apiVersion": owner.get("apiVersion", "v1"),
            "kind": owner.get("kind", kind),
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for owner in owners
    ]
    return {"metadata": {"name": name, "ownerReferences": references}}


def test_in_the_background(space: Space) -> None:
    space.make("deployments", workload("web", replicas=2))
    space.wait_status("deployments", "web", availableReplicas=2)
    pods = space.names("pods")
    space.delete("deployments", "web", propagationPolicy="Background")
    for name in pods:
        space.wait_gone("pods", name)
    assert space.names("replicasets") == []


def test_in_the_foreground(space: Space) -> None:
    space.make("deployments", workload("web", "lingers", replicas=1))
    space.wait_status("deployments", "web", availableReplicas=1)
    (name,) = space.names("pods")
    space.delete("deployments", "web", propagationPolicy="Foreground")
    space.wait("pods", name, lambda pod: pod["metadata"].get("deletionTimestamp"))
    waiting = space.get("deployments", "web")["metadata"]
    assert waiting["finalizers"] == ["foregroundDeletion"]
    space.delete("pods", name, gracePeriodSeconds=0)
    space.wait_gone("deployments", "web")


def test_left_as_orphans(space: Space) -> None:
    space.make("deployments", workload("web", replicas=1))
    space.wait_status("deployments", "web", availableReplicas=1)
    space.delete("deployments", "web", propagationPolicy="Orphan")
    space.wait_gone("deployments", "web")
    (left,) = space.all("replicasets")
    assert not left["metadata"].get("ownerReferences")
    assert len(space.living()) == 1


def test_several_owners_and_owners_that_never_were(space: Space) -> None:
    first, second = (space.make("configmaps", {"metadata": {"name": name}}) for name in ("first", "second"))
    space.make("secrets", _map("both", first, second))
    ghost = {"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}}
    space.make("secrets", _map("lost", ghost))
    space.wait_gone("secrets", "lost")
    space.delete("configmaps", "first")
    kept = space.wait("secrets", "both", lambda obj: len(obj["metadata"]["ownerReferences"]) == 1)
    assert kept["metadata"]["ownerReferences"][0]["name"] == "second"
    space.delete("configmaps", "second")
    space.wait_gone("secrets", "both")


def test_an_owner_in_another_namespace_is_none(space: Space) -> None:
    elsewhere = space.server.call("GET", "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt").body
    space.make("secrets", _map("astray", elsewhere))
    space.wait_gone("secrets", "astray")
    space.wait_event("astray", "OwnerRefInvalidNamespace")


@pytest.fixture
def widgets(space: Space) -> str:
    """A custom resource; its plural."""
    group = f"{space.name}.example.com"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    space.make("customresourcedefinitions", {"metadata": {"name": f"widgets.{group}"}, "spec": spec})
    space.wait(
        "customresourcedefinitions",
        f"widgets.{group}",
        lambda obj: condition(obj, "Established").get("status") == "True",
    )
    return f"/apis/{group}/v1/namespaces/{space.name}/widgets"


def test_custom_resources_own_and_are_owned(space: Space, widgets: str) -> None:
    kind = {"apiVersion": widgets.removeprefix("/apis/").partition("/namespaces")[0], "kind": "Widget"}
    owner = space.server.make(widgets, {**kind, "metadata": {"name": "owner"}})
    space.make("secrets", _map("child", owner))
    deployment = space.make("configmaps", {"metadata": {"name": "root"}})
    space.server.make(widgets, {**kind, **_map("grandchild", deployment)})
    assert space.server.call("DELETE", f"{widgets}/owner").status == 200
    space.wait_gone("secrets", "child")
    space.delete("configmaps", "root")
    answer = space.server.call("GET", f"{widgets}?watch=true&timeoutSeconds=1&fieldSelector=metadata.name=grandchild")
    while answer.body and answer.body[-1]["type"] != "DELETED":
        answer = space.server.call(
            "GET", f"{widgets}?watch=true&timeoutSeconds=1&fieldSelector=metadata.name=grandchild"
        )


def test_a_namespace_goes_with_all_that_is_in_it(space: Space, widgets: str) -> None:
    kind = {"apiVersion": widgets.removeprefix("/apis/").partition("/namespaces")[0], "kind": "Widget"}
    space.server.make(widgets, {**kind, "metadata": {"name": "w"}})
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    space.make("configmaps", held)
    space.make("deployments", workload("web", replicas=1))
    space.wait_status("deployments", "web", availableReplicas=1)
    space.delete("namespaces", space.name)
    stuck = space.wait(
        "namespaces",
        space.name,
        lambda obj: (
            condition(obj, "NamespaceContentRemaining").get("message")
            == "Some resources are remaining: configmaps. has 1 resource instances"
        ),
    )
    assert condition(stuck, "NamespaceFinalizersRemaining")["message"] == (
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    )
    space.patch("configmaps", "held", {"metadata": {"finalizers": None}}, kind="merge")
    space.wait_gone("namespaces", space.name)


def test_what_every_namespace_has(space: Space) -> None:
    root = space.wait("configmaps", "kube-root-ca.crt")
    space.delete("configmaps", "kube-root-ca.crt")
    again = space.wait(
        "configmaps", "kube-root-ca.crt", lambda obj: obj["metadata"]["uid"] != root["metadata"]["uid"]
    )
    assert "BEGIN CERTIFICATE" in again["data"]["ca.crt"]
    account = space.get("serviceaccounts", "default")["metadata"]["uid"]
    space.delete("serviceaccounts", "default")
    space.wait("serviceaccounts", "default", lambda obj: obj["metadata"]["uid"] != account)


def _custom(plural: str) -> Object:
    names = {"plural": plural, "singular": plural[:-1], "kind": plural[:-1].title()}
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "metadata": {"name": f"{plural}.passing.example"},
        "spec": {
            "group": "passing.example",
            "scope": "Namespaced",
            "names": names,
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


def test_a_definition_that_goes_is_watched_no_more(space: Space, cluster: Cloud) -> None:
    """Each definition is followed while it is there: what hangs on its objects goes with them."""
    path = f"/apis/passing.example/v1/namespaces/{space.name}"
    definitions = "customresourcedefinitions"
    for plural in ("firsts", "seconds", "thirds"):
        space.make(definitions, _custom(plural))
        space.wait(definitions, f"{plural}.passing.example", lambda obj: condition(obj, "Established"))
        owner = space.server.make(f"{path}/{plural}", {"metadata": {"name": "owner"}})
        space.make("configmaps", _map(f"of-{plural}", owner))
        assert space.server.call("DELETE", f"{path}/{plural}/owner").status == 200
        space.wait_gone("configmaps", f"of-{plural}")
        space.delete(definitions, f"{plural}.passing.example")
        space.wait_gone(definitions, f"{plural}.passing.example")
    said = cluster.log("controllers")
    assert said.count("watching firsts") <= 1
