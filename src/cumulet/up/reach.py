"""What this machine's own routes and firewall keep from pods, or from clients of Services: `up` and `status` say so."""

from __future__ import annotations

import ipaddress

from cumulet.common import router
from cumulet.common.config import Config
from cumulet.common.nftables import Nftables, NftablesError
from cumulet.up.preflight import Problem


def warnings(config: Config) -> list[Problem]:
    """Return what does not work of the network, with a fix for each, while the rooms run. Raises `RouterError`."""
    return [*_unrouted(config), *_refusing(config)]


def _unrouted(config: Config) -> list[Problem]:
    """Find ranges of Services that overlap routes of this machine."""
    routed = router.routed_ranges(config)
    ranges = {"--service-cidr": config.service_cidr, "--external-cidr": config.external_cidr}
    missing = {option: ipaddress.IPv4Network(text) for option, text in ranges.items()}
    return [
        Problem(
            f"this machine has a route to a part of {wanted} already, so its clients reach no Service there; pods do",
            f"create the installation with {option}, and a range that `ip route` does not show",
        )
        for option, wanted in missing.items()
        if wanted not in routed and not wanted.is_loopback
    ]


def _refusing(config: Config) -> list[Problem]:
    """Find chains of other programs that drop what this machine forwards, unless a rule of theirs accepts it."""
    link = router.link_name(config)
    try:
        with Nftables() as nftables:
            chains = [item["chain"] for item in nftables.listing_now("chains") if "chain" in item]
    except NftablesError:
        return []  # this user cannot look
    names = [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["family"] in ("ip", "inet")
    ]
    return [
        Problem(
            f"the firewall of this machine may drop what pods send to other machines: the policy of the chain {name} is drop",
            f"sudo nft insert rule {name} iifname {link} accept; "
            f"sudo nft insert rule {name} oifname {link} ct state established,related accept",
        )
        for name in names
    ]
