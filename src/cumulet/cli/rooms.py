"""`cumulet scheduler`, `controllers`, `node` and `balancer`: one room alone, as a client of any Kubernetes cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from cumulet.cli.lifecycle import ClientCa, NodeAddress, foreground
from cumulet.common import config as settings
from cumulet.common.config import Address, Config, RoomName
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.up import certificates, migration
from cumulet.up.install import install

Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Whose cluster to work in, and as whom; else the installation's own.",
        exists=True,
        dir_okay=False,
    ),
]
Port = Annotated[int | None, typer.Option(help="Where it listens; 0 picks a free port.", min=0, max=65535)]


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (scheduler, controllers, node, balancer):
        app.command()(verb)


def scheduler(kubeconfig: Kubeconfig = None, port: Port = None) -> None:
    """Give a cluster's pods their nodes, in the foreground."""
    _run("scheduler", kubeconfig, port)


def controllers(kubeconfig: Kubeconfig = None, port: Port = None) -> None:
    """Run a cluster's controllers, in the foreground."""
    _run("controllers", kubeconfig, port)


def balancer(
    kubeconfig: Kubeconfig = None,
    port: Port = None,
    external_cidr: Annotated[str | None, typer.Option(help="Range of the EXTERNAL-IPs.")] = None,
) -> None:
    """Give a cluster's Services of type LoadBalancer their addresses on this machine, in the foreground."""
    _run("balancer", kubeconfig, port, **({"external_cidr": external_cidr} if external_cidr else {}))


def node(
    kubeconfig: Kubeconfig = None,
    port: Port = None,
    name: Annotated[str | None, typer.Option(help="Of the node; virtual-node-aci-linux.")] = None,
    client_ca: ClientCa = None,
    node_address: NodeAddress = None,
) -> None:
    """Be a cluster's virtual node, in the foreground; its pods run in this installation, which must be up."""
    changed: dict[str, Any] = {"client_ca": client_ca and client_ca.absolute()}
    if name:
        changed["node_name"] = name
    _run("node", kubeconfig, port, node_address, **changed)


def _run(
    room: RoomName, kubeconfig: Path | None, port: int | None, address: str | None = None, **changed: Any
) -> None:
    config = _installation()
    if kubeconfig is not None:
        load_kubeconfig(kubeconfig)
        changed["kubeconfig"] = kubeconfig.absolute()
    own = config.addresses[room]
    listening = Address(address or own.host, own.port if port is None else port)
    if listening.port == 0:
        listening = listening.free()
    foreground(room, msgspec.structs.replace(config, addresses=config.addresses | {room: listening}, **changed))


def _installation() -> Config:
    """Load the settings and renew certificates that are due; make both if there are none."""
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
