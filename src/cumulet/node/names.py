"""The names of a pod, and the resolver of its containers (`pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/network/dns`)."""

from __future__ import annotations

from typing import NamedTuple

from cumulet.common import router
from cumulet.common.config import Config
from cumulet.common.kubernetes import resolv_conf
from cumulet.common.kubernetes.objects import Pod, PodDNSConfigOption
from cumulet.common.kubernetes.resolv_conf import Resolver
from cumulet.node.errors import UnsupportedError
from cumulet.node.resource import GroupDns

_DOMAIN = "cluster.local"
#: Characters of a label, and of Linux's host names.
_LABEL, _HOSTNAME = 63, 64
#: What resolv.conf(5) can have: name servers, search domains, and characters of the latter.
_SERVERS, _SEARCHES, _CHARACTERS = 3, 32, 2048


class PodNames(NamedTuple):
    """The host name, and the domain in which it is a name in full; `None` without a `subdomain`."""

    hostname: str
    domain: str | None


class PodDns(NamedTuple):
    """The resolver of a pod, and warnings about what did not fit."""

    config: GroupDns
    warnings: list[str]


def pod_names(pod: Pod) -> PodNames:
    """Return the names of a pod. Raises `UnsupportedError` if the name in full is too long for a host name."""
    spec, metadata = pod["spec"], pod["metadata"]
    if override := spec.get("hostnameOverride"):
        return PodNames(override, None)
    hostname = (spec.get("hostname") or metadata["name"])[:_LABEL].rstrip("-.")
    if not (subdomain := spec.get("subdomain")):
        return PodNames(hostname, None)
    domain = f"{subdomain}.{metadata['namespace']}.svc.{_DOMAIN}"
    name = f"{hostname}.{domain}"
    if spec.get("setHostnameAsFQDN") and len(name) > _HOSTNAME:
        raise UnsupportedError(
            f"Failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({_HOSTNAME} characters "
            f"is the max, {len(name)} characters requested)"
        )
    return PodNames(hostname, domain)


def pod_dns(pod: Pod, config: Config) -> PodDns:
    """Return the resolver of a pod: its `dnsConfig` is added to what its policy gives."""
    own = pod["spec"].get("dnsConfig") or {}
    base = _by_policy(pod, config)
    servers = [*dict.fromkeys([*base.servers, *(own.get("nameservers") or ())])]
    searches = [*dict.fromkeys([*base.searches, *(own.get("searches") or ())])]
    options = _options(base.options, own.get("options") or [])
    warnings = []
    if len(servers) > _SERVERS:
        servers = servers[:_SERVERS]
        warnings.append(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
            + " ".join(servers)
        )
    fitting = _fitting(searches)
    if fitting != searches:
        warnings.append(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
            + " ".join(fitting)
        )
    found: GroupDns = {"nameServers": servers}
    if fitting:
        found["searchDomains"] = " ".join(fitting)
    if options:
        found["options"] = " ".join(options)
    return PodDns(found, warnings)


def _by_policy(pod: Pod, config: Config) -> Resolver:
    """Return what a DNS policy gives: the cluster's name server with its domains, the machine's resolver, or nothing."""
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    if policy == "None":
        return Resolver([], [], [])
    machine = resolv_conf.parse(resolv_conf.text())
    gateway = str(router.gateway(config))
    if policy == "Default":
        # A pod does not reach a server on the machine's loopback; the gateway's asks it.
        reached = [server for server in machine.servers if not resolv_conf.is_loopback(server)]
        return machine._replace(servers=reached or [gateway])
    server = str(router.cluster_dns(config)) if config.kubeconfig is None else gateway
    domains = [f"{pod['metadata']['namespace']}.svc.{_DOMAIN}", f"svc.{_DOMAIN}", _DOMAIN]
    return Resolver([server], [*domains, *machine.searches], ["ndots:5"])


def _options(base: list[str], own: list[PodDNSConfigOption]) -> list[str]:
    """Return the options; the pod's own replace others of the same name."""
    values = {name: value for name, _, value in (option.partition(":") for option in base)}
    values |= {option.get("name", ""): option.get("value") or "" for option in own}
    return [f"{name}:{value}" if value else name for name, value in values.items() if name]


def _fitting(searches: list[str]) -> list[str]:
    found = searches[:_SEARCHES]
    while len(" ".join(found)) > _CHARACTERS:
        found.pop()
    return found
