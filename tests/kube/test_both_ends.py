"""The oldest and the newest supported kubectl in the usual workflows; `make test-clients` tests all versions between."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.kube.conftest import Program
from tests.kube.kubelet import StandInKubelet
from tests.kube.subresources.test_reaching_pods import Forwarded, site
from tests.kube.test_kubectl import WEB
from tests.kube.test_nodes_and_pods import kubelet, node, run

__all__ = ["kubelet", "node", "site"]

_PATHS = [str(Path(sys.prefix) / "clients" / f"kubectl-v{minor}") for minor in (30, 37)]

pytestmark = pytest.mark.parametrize("kubectl", _PATHS, indirect=True, ids=["1.30", "1.37"])


def test_a_deployment(kubectl: Program) -> None:
    assert kubectl("apply", "-f", "-", stdin=WEB) == "deployment.apps/web created\n"
    newer = WEB.replace("web:1", "web:2")
    assert "+      - image: example/web:2\n" in kubectl("diff", "-f", "-", stdin=newer, code=1)
    assert kubectl("apply", "--server-side", "-f", "-", stdin=WEB) == "deployment.apps/web serverside-applied\n"
    assert kubectl("apply", "--server-side", "-f", "-", stdin=newer) == "deployment.apps/web serverside-applied\n"
    kubectl("wait", "deploy/web", "--for=jsonpath={.status.observedGeneration}=2", "--timeout=20s")
    assert "2         <none>" in kubectl("rollout", "history", "deploy/web")
    assert "rolled back" in kubectl("rollout", "undo", "deploy/web")
    assert "Waiting for deployment" in kubectl("rollout", "status", "deploy/web", "--watch=false")
    watched = kubectl("get", "deploy", "-w", "--output-watch-events", "--request-timeout=1s").split("\n")
    assert watched[1].startswith("ADDED")
    assert "FIELDS:" in kubectl("explain", "deployment.spec.strategy")
    # Lists, and objects that the server created.
    assert "aggregate-to-view" in kubectl("describe", "clusterroles")
    assert "deleted" in kubectl("delete", "deploy", "web", "--cascade=foreground", "--timeout=20s")
    assert "not found" in kubectl("get", "deploy", "web", code=1)


@pytest.mark.parametrize("carrier", ["WebSockets", "SPDY"])
def test_a_pod(kubectl: Program, node: str, kubelet: StandInKubelet, site: int, tmp_path: Path, carrier: str) -> None:
    # By default kubectl 1.30 and older clients use SPDY, for some verbs or for all.
    for verb in ("REMOTE_COMMAND", "PORT_FORWARD"):
        kubectl.environment[f"KUBECTL_{verb}_WEBSOCKETS"] = str(carrier == "WebSockets").lower()
    run(kubectl, node, "p")
    assert kubectl("logs", "p", "--tail=2") == "one\ntwo\n"
    assert kubectl("exec", "-i", "p", "--", "cat", stdin="to and fro") == "to and fro"
    failed = kubectl("exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 3", code=3)
    assert sorted(failed.splitlines()) == ["command terminated with exit code 3", "err", "out"]
    assert 'unable to upgrade connection: container not found ("c")' in kubectl("exec", "p", "--", "refused", code=1)
    source, there, back = (tmp_path / name for name in ("source", "there", "back"))
    source.write_bytes(bytes(range(256)) * 20_000)
    kubectl("cp", str(source), f"p:{there}")
    kubectl("cp", f"p:{there}", str(back))
    assert back.read_bytes() == source.read_bytes()
    with Forwarded(kubectl, "p", site) as port:
        for _ in range(2):
            with urlopen(f"http://127.0.0.1:{port}/large") as answer:
                assert len(answer.read()) == 300_000
