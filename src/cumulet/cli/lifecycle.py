"""`cumulet up`, `down`, `status`, `env` and `serve`."""

from __future__ import annotations

import asyncio
import importlib
import time
from pathlib import Path
from typing import Annotated, get_args

import typer

from cumulet.cli.output import fail
from cumulet.common import config as settings
from cumulet.common.ascii import is_digits
from cumulet.common.config import Config, RoomName
from cumulet.common.egress import Exempt
from cumulet.common.room import run
from cumulet.up import certificates, install, lifecycle, migration, pools, preflight, reach

ClientCa = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="CA certificate (PEM) that verifies the API server's client certificate at the virtual node. "
        "The default is the CA in the kubeconfig.",
        exists=True,
        dir_okay=False,
    ),
]
NodeAddress = Annotated[
    str | None,
    typer.Option(
        metavar="IP",
        help="IPv4 address at which the API server reaches the virtual node. The default is 127.0.0.1.",
    ),
]
ExternalCidr = Annotated[
    str | None, typer.Option(metavar="CIDR", help="Range of EXTERNAL-IPs. A new installation has 10.242.0.0/24.")
]
ServiceCidr = Annotated[
    str | None,
    typer.Option(
        metavar="CIDR",
        help="Range of cluster IPs, which a cluster keeps. A new installation has 10.0.0.0/16.",
    ),
]
AllowEgress = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CIDR|ADDRESS[:PORT]",
        help="Allow connections to a refused address of a registry, webhook or API server that users name. "
        "Repeatable. Replaces earlier exceptions; 'none' removes them.",
    ),
]
StrictAci = Annotated[
    bool | None,
    typer.Option(
        "--strict-aci/--no-strict-aci",
        help="Refuse the pods that Azure's virtual node refuses, in its words and with its limits. The setting is saved.",
    ),
]


NodePool = Annotated[
    int | None,
    typer.Option(
        metavar="NUMBER",
        help=f"Number of ordinary nodes, 0 to {settings.POOL_LIMIT}. A new installation has none. The setting is saved. "
        "Nodes beyond the number are drained and deleted.",
        min=0,
        max=settings.POOL_LIMIT,
    ),
]
NodeSize = Annotated[
    str | None,
    typer.Option(
        "--node-vm-size",
        metavar="SIZE",
        help="Size of the ordinary nodes' virtual machines. A new installation has Standard_DS2_v2.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (up, down, status, env, serve):
        app.command()(verb)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all rooms are ready. They run in the background.")
    ] = False,
    port: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROOM=PORT",
            help="Port of a room. 0 picks a free port, and all=0 does so for every room. Repeatable.",
        ),
    ] = None,
    pod_cidr: Annotated[
        str | None,
        typer.Option(metavar="CIDR", help="Range of pod addresses. A new installation has 10.241.0.0/16."),
    ] = None,
    service_cidr: ServiceCidr = None,
    external_cidr: ExternalCidr = None,
    hosts: Annotated[
        bool,
        typer.Option("--hosts", help="Add login servers to /etc/hosts, and the CA to certs.d of docker and podman."),
    ] = False,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use the Kubernetes cluster of this kubeconfig in place of Cumulet's own control plane.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    client_ca: ClientCa = None,
    node_address: NodeAddress = None,
    allow_egress: AllowEgress = None,
    strict_aci: StrictAci = None,
    node_pool: NodePool = None,
    node_vm_size: NodeSize = None,
) -> None:
    """Start all rooms on this machine and write a kubeconfig. Creates the installation if there is none."""
    began = time.monotonic()
    data_dir = settings.default_data_dir()
    ports = _ports(port or [])
    exempt = _exempt(allow_egress)
    try:
        lifecycle.refuse_second(data_dir)
        migrates = migration.is_needed(data_dir)
        config = install.install(
            data_dir,
            ports=ports,
            pod_cidr=pod_cidr,
            service_cidr=service_cidr,
            external_cidr=external_cidr,
            with_hosts=hosts,
            kubeconfig=kubeconfig,
            client_ca=client_ca,
            node_address=node_address,
            allow_egress=exempt,
            strict_aci=strict_aci,
            pool=pools.Wanted(node_pool, node_vm_size),
        )
        if migrates:
            print(migration.notice(config, hosts))
        running = lifecycle.start(config, print)
    except lifecycle.StartError as error:
        details = "".join(f"\n  - {problem.what}\n    Fix: {problem.fix}" for problem in error.problems)
        raise typer.Exit(fail(f"{error}{details}")) from None
    for room in config.rooms:
        print(f"{room:<12} {config.url(room)}")
    print(f"kubeconfig   {config.kubeconfig_file()}")
    _print_warnings(reach.warnings(config))
    print(f'\nReady in {time.monotonic() - began:.1f} s. Use it: eval "$(cumulet env)"', flush=True)
    if not detach:
        raise typer.Exit(running.wait())


def down() -> None:
    """Stop all rooms. Remove every container, mount, network and address that they created."""
    for removed in lifecycle.stop(settings.load(settings.default_data_dir())):
        print(f"removed {removed}")


def status() -> None:
    """Show the state of each room and the expiry of certificates. Exit with 1 if a room is not ready."""
    config = settings.load(settings.default_data_dir())
    migration.refuse(config)
    rows = asyncio.run(lifecycle.status(config))
    print(f"{'ROOM':<12} {'PID':>7} {'MEMORY':>9}  {'URL':<26} HEALTH")
    for row in rows:
        memory = f"{row.resident / 1e6:.1f} MB" if row.resident else ""
        print(f"{row.room:<12} {row.pid or '':>7} {memory:>9}  {row.url:<26} {row.health}")
    print(f"{'all':<12} {'':>7} {sum(row.resident or 0 for row in rows) / 1e6:>6.1f} MB")
    print(f"{'AUTHORITY':<16} {'ENDS':<12} FIRST CERTIFICATE ENDS")
    for name, (own, first) in certificates.expiry(config).items():
        print(f"{name:<16} {own:%Y-%m-%d}   {first:%Y-%m-%d}")
    if config.kubeconfig is None:
        print(f"OIDC issuer of the cluster: {config.oidc_issuer}")
    print(f"user namespaces: {lifecycle.user_namespaces(config)}")
    _print_warnings([*preflight.warnings(), *reach.warnings(config)])
    if any(row.health != "ready" for row in rows):
        raise typer.Exit(1)


def _print_warnings(found: list[preflight.Problem]) -> None:
    for problem in found:
        print(f"warning: {problem.what}\n  Fix: {problem.fix}")


def env() -> None:
    """Print shell exports that point kubectl, docker, curl, az and the Azure SDKs at this installation."""
    config = settings.load(settings.default_data_dir())
    bundle = config.trust_bundle_file
    registry = config.addresses["registry"]
    values = {
        "CUMULET_DATA_DIR": config.data_dir,
        "KUBECONFIG": config.kubeconfig_file(),
        "CUMULET_REGISTRY": f"{'localhost' if registry.host == '127.0.0.1' else registry.host}:{registry.port}",
        "CUMULET_ARM": config.url("arm"),
        "CUMULET_CA": config.ca_file,
        **({} if config.kubeconfig is not None else {"CUMULET_OIDC_ISSUER": config.oidc_issuer}),
        "SSL_CERT_FILE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
    }
    for name, value in values.items():
        quoted = str(value).replace("'", "'\\''")
        print(f"export {name}='{quoted}'")


def serve(
    room: Annotated[str, typer.Argument(metavar="ROOM", help=f"One of {', '.join(get_args(RoomName))}.")],
) -> None:
    """Run one room in the foreground. It logs to standard error."""
    name = _room(room, "ROOM")
    config = settings.load(settings.default_data_dir())
    migration.refuse(config)
    certificates.maintain(config)
    foreground(name, config)


def foreground(name: RoomName, config: Config) -> None:
    """Run a room until SIGTERM or SIGINT."""
    module = importlib.import_module(f"cumulet.{name}.room")
    loop = {"new_event_loop": module.new_event_loop} if hasattr(module, "new_event_loop") else {}
    run(name, config, module.serve, on_ready=lambda: print(f"{name} {config.url(name)}", flush=True), **loop)


def _room(text: str, parameter: str) -> RoomName:
    """Parse the name of a room. Raises `BadParameter`."""
    for name in get_args(RoomName):
        if name == text:
            found: RoomName = name
            return found
    raise typer.BadParameter(
        f"{text!r} is not a room. Rooms are {', '.join(get_args(RoomName))}", param_hint=parameter
    )


def _exempt(options: list[str] | None) -> list[Exempt] | None:
    if options == ["none"]:
        return []
    try:
        return [Exempt(option) for option in options] if options else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--allow-egress") from None


def _ports(options: list[str]) -> dict[RoomName, int]:
    ports: dict[RoomName, int] = {}
    for option in options:
        room, _, number = option.partition("=")
        if not is_digits(number) or int(number) > 65535:
            raise typer.BadParameter(f"{option!r} is not ROOM=PORT, with a port from 0 to 65535", param_hint="--port")
        for name in get_args(RoomName) if room == "all" and number == "0" else [_room(room, "--port")]:
            ports[name] = int(number)
    return ports
