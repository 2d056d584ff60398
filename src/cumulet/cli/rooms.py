"""`cumulet scheduler`, `controllers`, `node`, `balancer` and `network`: run one room in any Kubernetes cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cumulet.cli.lifecycle import ClientCa, ExternalCidr, NodeAddress, StrictAci, foreground
from cumulet.common import config as settings
from cumulet.common import nftables
from cumulet.common.config import Address, Config, RoomName
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.up import certificates, migration
from cumulet.up.install import install, node_host, with_ranges

Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Kubeconfig of the cluster. The default is the installation's own.",
        exists=True,
        dir_okay=False,
    ),
]
Port = Annotated[int | None, typer.Option(help="Port to listen on. 0 picks a free port.", min=0, max=65535)]


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (scheduler, controllers, node, balancer, network):
        app.command()(verb)


def scheduler(kubeconfig: Kubeconfig = None, port: Port = None) -> None:
    """Run the scheduler in the foreground: assign pods to nodes."""
    _run("scheduler", _installation(), kubeconfig, port)


def controllers(kubeconfig: Kubeconfig = None, port: Port = None) -> None:
    """Run the controllers in the foreground."""
    _run("controllers", _installation(), kubeconfig, port)


def balancer(
    kubeconfig: Kubeconfig = None,
    port: Port = None,
    external_cidr: ExternalCidr = None,
    proxy: Annotated[
        bool | None,
        typer.Option(
            help="Forward TCP connections in user space, instead of `cumulet network` in the kernel. "
            "The default without root or nftables; --external-cidr must be a loopback range then."
        ),
    ] = None,
) -> None:
    """Run the balancer in the foreground: give Services of type LoadBalancer an address of this machine."""
    config = with_ranges(_installation(), external_cidr=external_cidr)
    if proxy is None:
        proxy = os.geteuid() != 0 or nftables.missing() is not None
    _run("balancer", msgspec.structs.replace(config, user_space_proxy=proxy), kubeconfig, port)


def network(kubeconfig: Kubeconfig = None, port: Port = None) -> None:
    """Run the network in the foreground: Services, network policies and DNS for the pods of this installation."""
    _run("network", _installation(), kubeconfig, port)


def node(
    kubeconfig: Kubeconfig = None,
    port: Port = None,
    name: Annotated[str | None, typer.Option(help="Name of the node. The default is virtual-node-aci-linux.")] = None,
    client_ca: ClientCa = None,
    node_address: NodeAddress = None,
    strict_aci: StrictAci = None,
) -> None:
    """Run the virtual node in the foreground. Its pods run in this installation, which must be up."""
    config = _installation()
    config = msgspec.structs.replace(
        config,
        client_ca=client_ca and client_ca.absolute(),
        node_name=name or config.node_name,
        strict_aci=config.strict_aci if strict_aci is None else strict_aci,
    )
    _run("node", config, kubeconfig, port, node_address)


def _run(room: RoomName, config: Config, kubeconfig: Path | None, port: int | None, host: str | None = None) -> None:
    if kubeconfig is not None:
        load_kubeconfig(kubeconfig)
        config = msgspec.structs.replace(config, kubeconfig=kubeconfig.absolute())
    own = config.addresses[room]
    listening = Address(node_host(host) if host else own.host, own.port if port is None else port)
    if listening.port == 0:
        listening = listening.free()
    foreground(room, msgspec.structs.replace(config, addresses=config.addresses | {room: listening}))


def _installation() -> Config:
    """Load the settings and renew due certificates. Create an installation if there is none. Raises `ConfigError`."""
    data_dir = settings.default_data_dir()
    try:
        config = settings.load(data_dir)
        migration.refuse(config)
        certificates.maintain(config)
        return config
    except settings.ConfigError:
        if (data_dir / "config.json").exists():
            raise
        return install(data_dir)
