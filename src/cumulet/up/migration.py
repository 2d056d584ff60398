"""Migrates a data directory in which a single authority signed everything.

Nothing trusts that authority any more, because the cluster's signers used it too and their certificates were valid
everywhere. The new certificates are created first and the old key is deleted last, so that a crash repeats the migration.
"""

from __future__ import annotations

from pathlib import Path

from cumulet.common.config import DEFAULT_PORTS, Config, ConfigError


def is_needed(data_dir: Path) -> bool:
    """Return whether the data directory still has the single authority."""
    return _key(data_dir).exists()


def refuse(config: Config) -> None:
    """Raise `ConfigError` if the data directory must be migrated first."""
    if is_needed(config.data_dir):
        raise ConfigError(
            f"the certificates in {config.pki_dir} are of an older version: run `cumulet up` to migrate them"
        )


def finish(config: Config) -> None:
    """Delete the old authority and its certificates, after the new ones were created."""
    if not is_needed(config.data_dir):
        return
    for name in (*DEFAULT_PORTS, "admin"):
        for kind in ("crt", "key"):
            (config.pki_dir / f"{name}.{kind}").unlink(missing_ok=True)
    _key(config.data_dir).unlink()


def notice(config: Config, with_hosts: bool) -> str:
    """Return one line that describes the change and the steps for users."""
    docker = "docker's certs.d is rewritten" if with_hosts else "copy ca.crt again to where docker has it (certs.d)"
    return (
        f"The single certificate authority of this installation was replaced by one for each purpose. {config.ca_file} and "
        f'{config.trust_bundle_file} are new: {docker}, run `eval "$(cumulet env)"` again for az, and take kubeconfigs '
        f"from {config.kubeconfig_file().parent}. Client certificates that the cluster signed before are no longer valid."
    )


def _key(data_dir: Path) -> Path:
    return data_dir / "pki" / "ca.key"
