"""Brings a data directory of an earlier layout up to date: one authority signed everything in it.

That authority is no longer trusted by anyone of the installation, since whatever the cluster's signers had it sign could
be used anywhere. The new certificates are made first; the old key goes last, so that a crash repeats the rest.
"""

from __future__ import annotations

from pathlib import Path

from cumulet.common.config import DEFAULT_PORTS, Config, ConfigError


def is_needed(data_dir: Path) -> bool:
    """Whether the data directory still has the single authority."""
    return _key(data_dir).exists()


def refuse(config: Config) -> None:
    """Raises `ConfigError` where the data directory is to be brought up to date first."""
    if is_needed(config.data_dir):
        raise ConfigError(f"the certificates in {config.pki_dir} are of an older version: run `cumulet up`")


def finish(config: Config) -> None:
    """Remove the old authority and what it signed; the new certificates are there."""
    if not is_needed(config.data_dir):
        return
    for name in (*DEFAULT_PORTS, "admin"):
        for kind in ("crt", "key"):
            (config.pki_dir / f"{name}.{kind}").unlink(missing_ok=True)
    _key(config.data_dir).unlink()


def notice(config: Config, with_hosts: bool) -> str:
    """What has changed, and what users have to do, as a line."""
    docker = "docker's certs.d is rewritten" if with_hosts else "copy ca.crt again to where docker has it (certs.d)"
    return (
        f"The single certificate authority of this installation was replaced by one for each purpose. {config.ca_file} and "
        f'{config.trust_bundle_file} are new: {docker}, run `eval "$(cumulet env)"` again for az, and take kubeconfigs '
        f"from {config.kubeconfig_file().parent}. Client certificates that the cluster signed before are no longer valid."
    )


def _key(data_dir: Path) -> Path:
    return data_dir / "pki" / "ca.key"
