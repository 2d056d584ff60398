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
from cumulet.up import certificates, install, lifecycle, migration, preflight

ClientCa = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Who signs the certificate that the cluster's API server shows to nodes, PEM; else as the kubeconfig has it.",
        exists=True,
        dir_okay=False,
    ),
]
NodeAddress = Annotated[
    str | None, typer.Option(metavar="IP", help="Where the cluster's API server reaches the virtual node; 127.0.0.1.")
]

AllowEgress = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CIDR|ADDRESS:PORT",
        help="What registries, webhooks and API servers that users name may be at, although it is refused otherwise. "
        "Replaces what was given before; 'none' for nothing.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (up, down, status, env, serve):
        app.command()(verb)


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False,
    port: Annotated[
        list[str] | None, typer.Option(metavar="ROOM=PORT", help="Where a room listens; 0 picks a free port.")
    ] = None,
    pod_cidr: Annotated[str | None, typer.Option(help="Range of the pods' addresses.")] = None,
    external_cidr: Annotated[str | None, typer.Option(help="Range of the EXTERNAL-IPs.")] = None,
    hosts: Annotated[
        bool, typer.Option("--hosts", help="Make login servers known to this machine: /etc/hosts, docker's certs.d.")
    ] = False,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Work in the cluster of this kubeconfig: its control plane takes the place of ours.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    client_ca: ClientCa = None,
    node_address: NodeAddress = None,
    allow_egress: AllowEgress = None,
) -> None:
    """Start every room on this machine, and leave a kubeconfig."""
    began = time.monotonic()
    data_dir = settings.default_data_dir()
    exempt = _exempt(allow_egress)
    try:
        lifecycle.refuse_second(data_dir)
        migrates = migration.is_needed(data_dir)
        config = install.install(
            data_dir,
            ports=_ports(port or []),
            pod_cidr=pod_cidr,
            external_cidr=external_cidr,
            with_hosts=hosts,
            kubeconfig=kubeconfig,
            client_ca=client_ca,
            node_address=node_address,
            allow_egress=exempt,
        )
        if migrates:
            print(migration.notice(config, hosts))
        running = lifecycle.start(config)
    except lifecycle.StartError as error:
        wanting = "".join(f"\n  - {problem.what}\n      {problem.cure}" for problem in error.problems)
        raise typer.Exit(fail(f"{error}{wanting}")) from None
    for room in config.rooms:
        print(f"{room:<12} {config.url(room)}")
    print(f"kubeconfig   {config.kubeconfig_file()}")
    print(f'\nReady in {time.monotonic() - began:.1f} s. To use it: eval "$(cumulet env)"', flush=True)
    if not detach:
        raise typer.Exit(running.wait())


def down() -> None:
    """Stop every room and take away every container, mount, network and address that was made."""
    for removed in lifecycle.stop(settings.load(settings.default_data_dir())):
        print(f"removed {removed}")


def status() -> None:
    """Tell, room by room, what is up. Exits with 1 where something is not."""
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
    print(f"user namespaces: {lifecycle.user_namespaces(config)}")
    _print_warnings()
    if any(row.health != "ready" for row in rows):
        raise typer.Exit(1)


def _print_warnings() -> None:
    for problem in preflight.warnings():
        print(f"warning: {problem.what}\n  {problem.cure}")


def env() -> None:
    """Print what to export so that kubectl, docker, curl, az and the Azure SDKs find and trust this installation."""
    config = settings.load(settings.default_data_dir())
    bundle = config.trust_bundle_file
    registry = config.addresses["registry"]
    values = {
        "CUMULET_DATA_DIR": config.data_dir,
        "KUBECONFIG": config.kubeconfig_file(),
        "CUMULET_REGISTRY": f"{'localhost' if registry.host == '127.0.0.1' else registry.host}:{registry.port}",
        "CUMULET_ARM": config.url("arm"),
        "CUMULET_CA": config.ca_file,
        "SSL_CERT_FILE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
    }
    for name, value in values.items():
        print(f"export {name}='{value}'")


def serve(room: Annotated[str, typer.Argument(help=f"One of {', '.join(get_args(RoomName))}.")]) -> None:
    """Run one room alone in the foreground, logging to standard error."""
    config = settings.load(settings.default_data_dir())
    migration.refuse(config)
    certificates.maintain(config)
    foreground(_room(room), config)


def foreground(name: RoomName, config: Config) -> None:
    """Be a room until SIGTERM or SIGINT."""
    module = importlib.import_module(f"cumulet.{name}.room")
    loop = {"new_event_loop": module.new_event_loop} if hasattr(module, "new_event_loop") else {}
    run(name, config, module.serve, on_ready=lambda: print(f"{name} {config.url(name)}", flush=True), **loop)


def _room(text: str) -> RoomName:
    for name in get_args(RoomName):
        if name == text:
            found: RoomName = name
            return found
    raise typer.BadParameter(f"there is no room {text!r}: it is one of {', '.join(get_args(RoomName))}")


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
            raise typer.BadParameter(f"{option!r} is not ROOM=PORT", param_hint="--port")
        for name in get_args(RoomName) if room == "all" and number == "0" else [_room(room)]:
            ports[name] = int(number)
    return ports
