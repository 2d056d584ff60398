"""The path as the cases walk it: push an image, apply a pod, read what became of it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from tests.installation import Installation
from tests.instances.images import busybox_layer, write_layout

T = TypeVar("T")

LOGIN_SERVER = "acrdemo2ss.azurecr.io"
PULL_SECRET = "acrdemo2ss-secret"
#: Busybox with two accounts, root and web (1001:1002); its PATH is /bin.
IMAGE = f"{LOGIN_SERVER}/bb:1"


class ThePath:
    """An installation with the registry `acrdemo2ss`, which has `bb:1`, and a good pull secret in `default`."""

    def __init__(self, installation: Installation, credentials: str) -> None:
        self.installation = installation
        self.kubectl = installation.kubectl
        #: `user:password` of the registry's admin user.
        self.credentials = credentials

    def push(self, name: str, layers: Iterable[bytes], **settings: Any) -> str:
        """Push an image `repository:tag`; return its name in a pod. `settings` are those of the image's `config`."""
        with tempfile.TemporaryDirectory() as folder:
            write_layout(Path(folder), list(layers), settings)
            self.push_layout(Path(folder), name)
        return f"{LOGIN_SERVER}/{name}"

    def push_busybox(self, name: str) -> str:
        """Push busybox with another name; return its name in a pod."""
        return self.push(name, [busybox_layer()], Cmd=["sh"])

    def push_layout(self, folder: Path, name: str, *options: str) -> None:
        """Push the image `it` of an OCI layout, with skopeo."""
        target = f"docker://{self.installation.environment['CUMULET_REGISTRY']}/{name}"
        creds = ("--dest-creds", self.credentials)
        self.installation.run("skopeo", "copy", "--quiet", *creds, *options, f"oci:{folder}:it", target)

    def apply(self, *manifests: dict[str, Any], code: int = 0) -> str:
        """`kubectl apply` of manifests; returns what kubectl printed."""
        document = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(document), code=code)

    def run(self, name: str, *command: str, **spec: Any) -> None:
        """Apply a pod of one container `main`, of IMAGE, which runs once; `spec` is that of `pod`."""
        self.apply(pod(name, [{"name": "main", "command": list(command)}], restartPolicy="Never", **spec))

    def get(self, name: str, kind: str = "pod") -> dict[str, Any]:
        """An object, as JSON."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def wait(self, what: str, condition: str, *, seconds: int = 60) -> None:
        """`kubectl wait pod/NAME --for=CONDITION`, such as `jsonpath={.status.phase}=Running`."""
        self.kubectl("wait", what, f"--for={condition}", f"--timeout={seconds}s")

    def wait_phase(self, name: str, phase: str, *, seconds: int = 60) -> None:
        """Wait until a pod has that phase."""
        self.wait(f"pod/{name}", f"jsonpath={{.status.phase}}={phase}", seconds=seconds)

    def output(self, name: str, *options: str) -> str:
        """Wait until a pod has succeeded, and return its log."""
        self.wait_phase(name, "Succeeded")
        return self.kubectl("logs", name, *options)

    def events(self, name: str, reason: str) -> str:
        """The messages of the events of that reason about an object, once there is one."""
        selector = f"involvedObject.name={name},reason={reason}"
        read = ("get", "events", "--field-selector", selector, "-o", "jsonpath={.items[*].message}")
        return self.until(lambda: self.kubectl(*read), f"event {reason} about {name}")

    def until(self, read: Callable[[], T], what: str, *, seconds: float = 60) -> T:
        """Read again until the value is true, for values that no `kubectl wait` can wait for."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := read():
                return found
        raise AssertionError(f"no {what} within {seconds} s")


def pod(name: str, containers: Iterable[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    """A pod for the virtual node; containers are of IMAGE unless they name another."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeSelector": {"type": "virtual-kubelet"},
            "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
            "imagePullSecrets": [{"name": PULL_SECRET}],
            "terminationGracePeriodSeconds": 1,
            "containers": [{"image": IMAGE, **container} for container in containers],
            **spec,
        },
    }
