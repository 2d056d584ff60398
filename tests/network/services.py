"""Services of a test's own, without pods of the cluster: their end points are written by the test."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cumulet.common.config import Config
from cumulet.network.services.frontends import Site
from tests.cloud import Cloud
from tests.controllers.space import WAIT, Object, Space
from tests.installation import free_ranges


def ranges() -> dict[str, str]:
    """The settings of an installation with ranges that this machine has no route to."""
    return dict(zip(("pod_cidr", "service_cidr", "external_cidr"), free_ranges(), strict=True))


def site_of(pods: str, external: str) -> Site:
    """The addresses of an installation that need not exist."""
    config = Config(
        data_dir=Path("none"), addresses={}, tenant_id="", subscription_id="", pod_cidr=pods, external_cidr=external
    )
    return Site.of(config)


class Services:
    """Services of a namespace of a test's own."""

    def __init__(self, space: Space, cloud: Cloud) -> None:
        self.space = space
        self.cloud = cloud

    def make(self, name: str, ports: list[Object] | None = None, **spec: object) -> str:
        """Create a Service without a selector, and return its cluster IP."""
        ports = ports or [{"port": 80, "targetPort": 8080}]
        made = self.space.make("services", {"metadata": {"name": name}, "spec": {"ports": ports, **spec}})
        return str(made["spec"].get("clusterIP", ""))

    def slice(
        self,
        service: str,
        *addresses: str,
        port: int = 8080,
        protocol: str = "TCP",
        name: str = "",
        suffix: str = "a",
        **conditions: bool,
    ) -> str:
        """Create an EndpointSlice, and return its name."""
        slice_name = f"{service}-{suffix}"
        body = {
            "metadata": {"name": slice_name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": [address], "conditions": {"ready": True, **conditions}} for address in addresses
            ],
            "ports": [{"name": name, "port": port, "protocol": protocol}],
        }
        self.space.make("endpointslices", body)
        return slice_name

    def set(self, slice_name: str, *addresses: str, **conditions: bool) -> None:
        """Replace the end points of a slice."""
        endpoints = [{"addresses": [address], "conditions": {"ready": True, **conditions}} for address in addresses]
        self.space.patch("endpointslices", slice_name, {"endpoints": endpoints}, kind="merge")

    def external(self, name: str) -> str:
        """Wait for the EXTERNAL-IP of a Service, and return it."""

        def ingress(service: Object) -> list[Object]:
            found: list[Object] = service["status"]["loadBalancer"].get("ingress") or []
            return found

        return str(ingress(self.space.wait("services", name, ingress))[0]["ip"])

    def until(self, ask: Callable[[], object], *expected: object) -> object:
        """Ask until the answer is one of these, and return it. Each round makes a request of the API server."""
        until = time.monotonic() + WAIT
        while (found := ask()) not in expected:
            assert time.monotonic() < until, f"{found} and not {expected}"
            self.space.names("services")
        return found
