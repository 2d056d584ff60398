"""What a deployer does, in a word each."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.installation import Installation

EXAMPLE = Path(__file__).parents[2] / "examples" / "app3"
LOGIN_SERVER = "acrdemo2ss.azurecr.io"
NODE = "virtual-node-aci-linux"
IMAGE = "app3/acr-app3:v1"


class Cluster:
    """An installation with a registry and principals."""

    def __init__(self, installation: Installation, registry_id: str) -> None:
        self.installation = installation
        self.registry_id = registry_id
        self.kubectl = installation.kubectl
        self._principals: dict[str, tuple[str, str]] = {}

    def principal(self, name: str, *options: str) -> None:
        """Make a service principal with a secret."""
        made = self.installation.cumulet("sp", "create", name, *options)
        self._principals[name] = made["appId"], made["password"]

    def brief_principal(self, name: str, *options: str) -> None:
        """Make a service principal whose secret is good for a moment."""
        soon = datetime.now(tz=UTC) + timedelta(seconds=8)
        self.principal(name, *options, "--end-date", soon.isoformat())

    def wait_until_expired(self, name: str) -> None:
        """Wait until the registry refuses a principal's secret."""
        client_id, secret = self.credentials(name)
        url = f"https://{self.installation.environment['CUMULET_REGISTRY']}/v2/"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = self.installation.run("curl", "-sS", "-u", f"{client_id}:{secret}", url)
            if "UNAUTHORIZED" in answer:
                return
        raise AssertionError(f"the secret of {name} did not expire: {answer}")

    def renew(self, name: str) -> None:
        """Give a principal a new secret."""
        client_id, _ = self.credentials(name)
        self._principals[name] = client_id, self.installation.cumulet("sp", "reset", client_id)["password"]

    def credentials(self, name: str) -> tuple[str, str]:
        """A principal's application id and secret."""
        return self._principals[name]

    def attach_registry(self) -> None:
        """Let the cluster's own identity pull, as `az aks update --attach-acr` does."""
        self.installation.cumulet("registry", "attach", "acrdemo2ss")

    def push(self, who: str, image: str, code: int = 0) -> str:
        """Push the example image under a name."""
        target = f"docker://{self.installation.environment['CUMULET_REGISTRY']}/{image}"
        credentials = ":".join(self.credentials(who))
        return self.installation.run("buildah", "push", "--creds", credentials, "acr-app3:v1", target, code=code)

    def pull_secret(self, name: str, who: str, password: str | None = None) -> None:
        """Create or replace a pull secret as `kubectl create secret docker-registry` makes it."""
        client_id, secret = self.credentials(who)
        manifest = self.kubectl(
            "create", "secret", "docker-registry", name, f"--docker-server={LOGIN_SERVER}",
            f"--docker-username={client_id}", f"--docker-password={password or secret}", "--dry-run=client", "-o", "json",
        )  # fmt: skip
        self.kubectl("apply", "-f", "-", stdin=manifest)

    def pod(self, name: str, image: str = IMAGE, *, secret: str = "acrdemo2ss-secret", **spec: Any) -> None:
        """Apply a pod for the virtual node."""
        full = image if image.count("/") == 0 or "." in image.split("/")[0] else f"{LOGIN_SERVER}/{image}"
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "containers": [{"name": "web", "image": full}],
                "imagePullSecrets": [{"name": secret}],
                "nodeSelector": {"type": "virtual-kubelet"},
                "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                "terminationGracePeriodSeconds": 1,
                **spec,
            },
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def claim(self, name: str) -> None:
        """Apply a claim of a disk, of the cluster's default class."""
        manifest = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def wait(self, what: str, condition: str, *options: str) -> None:
        """`kubectl wait`."""
        self.kubectl("wait", *what.split(), f"--for={condition}", "--timeout=60s", *options)

    def wait_reason(self, pod: str, reason: str) -> None:
        """Wait until a pod's container waits for that reason."""
        self.wait(f"pod {pod}", f"jsonpath={{.status.containerStatuses[0].state.waiting.reason}}={reason}")

    def events(self, name: str, reason: str) -> str:
        """The messages of the events of that reason about an object, once there is one."""
        selector = f"involvedObject.name={name},reason={reason}"
        # Events are written behind what they tell of: a watch ends with the first.
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = self.kubectl("get", "events", "--field-selector", selector, "-o", "jsonpath={.items[*].message}")
            if found:
                return found
        raise AssertionError(f"no event {reason} about {name}")

    def wait_count(self, name: str, reason: str, least: int) -> None:
        """Wait until an event of that reason about an object has happened at least so often."""
        selector = f"involvedObject.name={name},reason={reason}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = self.kubectl("get", "events", "--field-selector", selector, "-o", "jsonpath={.items[*].count}")
            if sum(map(int, found.split())) >= least:
                return
        raise AssertionError(f"{reason} about {name} happened {found or 0} times, not {least}")

    def curl(self, url: str) -> str:
        """Get a page, asking again while nobody answers, such as an endpoint whose end no controller has noticed yet."""
        return self.installation.run("curl", "-sS", "--max-time", "20", "--retry", "8", "--retry-all-errors", url)

    def external_ip(self) -> str:
        """The example service's address."""
        service = "service/acrdemo2ss-loadbalancer-service"
        self.wait(service, "jsonpath={.status.loadBalancer.ingress[0].ip}")
        return self.kubectl("get", service, "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
