"""The authorities that pods with workload identity trust."""

from __future__ import annotations

from tests.cloud import Cloud
from tests.controllers.space import Space

NAME = "azure-ca-bundle"


def test_they_are_where_such_a_pod_is(space: Space, cluster: Cloud) -> None:
    labels = {"azure.workload.identity/use": "true"}
    spec = {"containers": [{"name": "c", "image": "x"}]}
    space.make("pods", {"metadata": {"name": "plain"}, "spec": spec})
    space.wait("pods", "plain", lambda pod: pod["spec"].get("nodeName"))
    assert NAME not in space.names("configmaps")
    space.make("pods", {"metadata": {"name": "federated", "labels": labels}, "spec": spec})
    bundle = cluster.config.trust_bundle_file.read_text()
    found = space.wait("configmaps", NAME)
    assert found["data"] == {"ca-bundle.crt": bundle}
    space.delete("configmaps", NAME)
    space.wait("configmaps", NAME, lambda obj: obj["metadata"]["uid"] != found["metadata"]["uid"])
