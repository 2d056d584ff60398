"""A pod's security fields on the virtual node: honoured, or refused by name and not run."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.common.config import Config
from cumulet.common.kubernetes.objects import Pod, PodSecurityContext, SecurityContext
from cumulet.instances.cleanup import cleanup
from cumulet.node.errors import MissingError, UnsupportedError
from cumulet.node.resource import GroupSecurityContext
from cumulet.node.security import security_context
from tests.cloud import Cloud
from tests.installation import free_pod_cidr
from tests.kube.conftest import Server

_REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "host-users": ({"hostUsers": True}, {}, "spec.hostUsers is not supported"),
    "host-pid": ({"hostPID": True}, {}, "spec.hostPID is not supported"),
    "privileged": ({}, {"privileged": True}, "spec.containers[0].securityContext.privileged is not supported"),
    "unconfined": (
        {},
        {"seccompProfile": {"type": "Unconfined"}},
        'spec.containers[0].securityContext.seccompProfile.type "Unconfined" is not supported',
    ),
    "unconfined-pod": (
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
        {},
        'spec.securityContext.seccompProfile.type "Unconfined" is not supported',
    ),
    "unmasked": (
        {"hostUsers": False},
        {"procMount": "Unmasked"},
        'spec.containers[0].securityContext.procMount "Unmasked" is not supported',
    ),
    "app-armor": (
        {},
        {"appArmorProfile": {"type": "RuntimeDefault"}},
        'spec.containers[0].securityContext.appArmorProfile.type "RuntimeDefault" is not supported',
    ),
    "se-linux": (
        {},
        {"seLinuxOptions": {"level": "s0"}},
        "spec.containers[0].securityContext.seLinuxOptions is not supported",
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An API server with its virtual node."""
    data_dir = tmp_path_factory.mktemp("node") / "data"
    cloud = Cloud(data_dir, "kube", "arm", "instances", "node", pod_cidr=free_pod_cidr())
    yield Server(cloud)
    cloud.close()
    cleanup(cloud.config)


def test_what_no_virtual_node_has_is_refused_by_name(server: Server) -> None:
    space = server.namespace("refused")
    for name, (spec, context, _) in _REFUSED.items():
        container = {"name": "web", "image": "acrtest.azurecr.io/web:v1", "securityContext": context}
        tolerations = [{"operator": "Exists"}]
        pod = {
            "nodeName": server.cloud.config.node_name,
            "containers": [container],
            "tolerations": tolerations,
            "restartPolicy": "Never",  # others stay pending
            **spec,
        }
        server.make(f"{space}/pods", {"metadata": {"name": name}, "spec": pod})
    waiting = set(_REFUSED)
    revision = ""
    while waiting:
        answer = server.call("GET", f"{space}/pods?watch=true&timeoutSeconds=5&resourceVersion={revision}")
        for event in answer.body:
            pod = event["object"]
            name, status = pod["metadata"]["name"], pod.get("status") or {}
            if status.get("phase") == "Failed":
                assert status["reason"] == "ProviderFailed"
                assert _REFUSED[name][2] in status["message"]
                waiting.discard(name)


def translated(config: Config, pod: PodSecurityContext, container: SecurityContext) -> GroupSecurityContext:
    """Return the `securityContext` of a container in a group."""
    above: Pod = {"metadata": {"name": "p"}, "spec": {"securityContext": pod}}
    return security_context(above, {"name": "web", "securityContext": container}, config)


def test_what_a_container_says_goes_before_what_its_pod_says(server: Server) -> None:
    config = server.cloud.config
    pod: PodSecurityContext = {
        "runAsUser": 1,
        "runAsGroup": 2,
        "runAsNonRoot": True,
        "fsGroup": 0,
        "supplementalGroups": [5],
    }
    assert translated(config, pod, {}) == {
        "runAsUser": 1, "runAsGroup": 2, "runAsNonRoot": True, "supplementalGroups": [5],
    }  # fmt: skip
    own: SecurityContext = {
        "runAsUser": 0,
        "runAsNonRoot": False,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert translated(config, {"runAsUser": 1, "runAsNonRoot": True}, own) == own
    assert translated(config, {}, {"seccompProfile": {"type": "RuntimeDefault"}, "privileged": False}) == {}


def test_a_local_profile_is_a_file_of_the_node(server: Server, tmp_path: Path) -> None:
    config = server.cloud.config
    folder = config.data_dir / "seccomp" / "own"
    folder.mkdir(parents=True)
    (folder / "fine.json").write_text('{"defaultAction": "SCMP_ACT_ERRNO"}')
    above: PodSecurityContext = {"seccompProfile": {"type": "Localhost", "localhostProfile": "own/fine.json"}}
    encoded = base64.b64encode(b'{"defaultAction": "SCMP_ACT_ERRNO"}').decode()
    assert translated(config, above, {}) == {"seccompProfile": encoded}
    assert translated(config, above, {"seccompProfile": {"type": "RuntimeDefault"}}) == {}
    for name, error, why in (
        (
            "missing.json",
            MissingError,
            f'cannot load seccomp profile "{config.data_dir}/seccomp/missing.json": No such',
        ),
        ("../config.json", UnsupportedError, "is not the path of a file beneath"),
        (f"{tmp_path}/x", UnsupportedError, "is not the path of a file beneath"),
        ("own//fine.json", UnsupportedError, "is not the path of a file beneath"),
        ("own", MissingError, "Is a directory"),
    ):
        with pytest.raises(error, match=why.replace("/", r"\/").replace(".", r"\.")):
            translated(config, {"seccompProfile": {"type": "Localhost", "localhostProfile": name}}, {})
