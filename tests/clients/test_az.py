"""Unmodified az: a registered cloud, a login as a service principal, and the commands of a registry's owner.

Everything uses a copy of /etc, in which `cumulet up --hosts` adds the login server.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation
from tests.instances.images import busybox_layer
from tests.instances.images import write_layout as write_image
from tests.oci_layout import write_layout

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and port 443 take root"),
]

AZ = Path(__file__).parents[2] / ".venv/clients/az/bin/az"
NAME, SERVER, IMAGE = "acrdemo2ss", "acrdemo2ss.azurecr.io", "app3/acr-app3:v1"
NULL_GUID = "00000000-0000-0000-0000-000000000000"


class Apart(Installation):
    """An installation whose commands see a copy of /etc."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "data")
        self.environment |= {"AZURE_CONFIG_DIR": str(folder / "azure"), "AZURE_CORE_INSTANCE_DISCOVERY": "false"}
        self.environment |= {"AZURE_CORE_COLLECT_TELEMETRY": "false", "AZURE_CORE_ONLY_SHOW_ERRORS": "true"}
        etc = folder / "etc"
        script = f"mount --make-rprivate / && cp -a /etc {etc} && mount --bind {etc} /etc && echo ready && read _"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    def run(self, *command: str, **options: Any) -> str:
        """Run a command in the mount namespace with the copy."""
        return super().run("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *command, **options)

    def az(self, *arguments: str, code: int = 0) -> Any:
        """Run an `az` command and return its JSON, or its error if it fails with `code`."""
        output = self.run(str(AZ), *arguments, code=code)
        return output if code else json.loads(output or "null")

    def skopeo(self, *arguments: str, code: int = 0) -> str:
        """Run a `skopeo` command."""
        return self.run("skopeo", *arguments, code=code)

    def close(self) -> None:
        """Stop the installation and delete the copy."""
        self.down()
        self._holder.communicate(b"\n")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    """The cloud in which az is logged in, with a registry and an image."""
    folder = tmp_path_factory.mktemp("az")
    write_layout(folder / "image")
    made = Apart(folder)
    try:
        made.up("--hosts")
        settings = json.loads((made.data_dir / "config.json").read_bytes())
        owner = made.cumulet(
            "sp", "create", "owner", "--role", "Owner", "--scope", f"/subscriptions/{settings['subscription_id']}"
        )
        made.az(
            "cloud", "register", "--name", "Cumulet", "--endpoint-resource-manager", made.environment["CUMULET_ARM"]
        )
        made.az("cloud", "set", "--name", "Cumulet")
        secret = ("--username", owner["appId"], "--password", owner["password"], "--tenant", owner["tenant"])
        assert made.az("login", "--service-principal", *secret)[0]["id"] == settings["subscription_id"]
        assert made.az("group", "create", "--name", "rg", "--location", "eastus")["name"] == "rg"
        assert (
            made.az("acr", "create", "--name", NAME, "--resource-group", "rg", "--sku", "Premium")["loginServer"]
            == SERVER
        )
        token = made.az("acr", "login", "--name", NAME, "--expose-token")
        assert token["loginServer"] == SERVER
        login = ("--dest-creds", f"{NULL_GUID}:{token['accessToken']}")
        made.skopeo("copy", *login, f"oci:{folder / 'image'}:v1", f"docker://{SERVER}/{IMAGE}")
        yield made
    finally:
        made.close()


def test_registries_and_their_admin_user(cloud: Apart) -> None:
    assert [each["name"] for each in cloud.az("acr", "list")] == [NAME]
    assert "is already in use" in cloud.az("acr", "check-name", "--name", NAME)["message"]
    assert cloud.az("acr", "update", "--name", NAME, "--admin-enabled", "true")["adminUserEnabled"] is True
    found = cloud.az("acr", "credential", "show", "--name", NAME)
    renewed = cloud.az("acr", "credential", "renew", "--name", NAME, "--password-name", "password2")
    old, new = ({each["name"]: each["value"] for each in each["passwords"]} for each in (found, renewed))
    assert old["password"] == new["password"]
    assert old["password2"] != new["password2"]
    assert SERVER in cloud.skopeo("inspect", "--creds", f"{NAME}:{new['password2']}", f"docker://{SERVER}/{IMAGE}")
    cloud.skopeo("inspect", "--creds", f"{NAME}:{old['password2']}", f"docker://{SERVER}/{IMAGE}", code=1)
    usage = {each["name"]: each["currentValue"] for each in cloud.az("acr", "show-usage", "--name", NAME)["value"]}
    assert usage["Size"] > 0


def test_repositories_and_manifests(cloud: Apart) -> None:
    repository = IMAGE.partition(":")[0]
    assert repository in cloud.az("acr", "repository", "list", "--name", NAME)
    assert cloud.az("acr", "repository", "show-tags", "--name", NAME, "--repository", repository) == ["v1"]
    tag = cloud.az("acr", "repository", "show", "--name", NAME, "--image", IMAGE)
    (manifest,) = cloud.az("acr", "manifest", "list-metadata", "--registry", NAME, "--name", repository)
    assert (manifest["digest"], manifest["tags"]) == (tag["digest"], ["v1"])
    assert cloud.az("acr", "manifest", "show", f"{SERVER}/{IMAGE}")["schemaVersion"] == 2


def test_a_lock(cloud: Apart) -> None:
    def lock(writable: str) -> None:
        update = ("acr", "repository", "update", "--name", NAME, "--image", IMAGE, "--write-enabled", writable)
        assert cloud.az(*update)["changeableAttributes"]["writeEnabled"] is (writable == "true")

    lock("false")
    delete = ("acr", "repository", "delete", "--name", NAME, "--image", IMAGE, "--yes")
    assert "is locked" in cloud.az(*delete, code=1)
    lock("true")


def test_an_import_is_listed_and_deleted(cloud: Apart) -> None:
    cloud.az("acr", "import", "--name", NAME, "--source", f"{SERVER}/{IMAGE}", "--image", "copy/app:v2")
    assert "copy/app" in cloud.az("acr", "repository", "list", "--name", NAME)
    cloud.az("acr", "repository", "delete", "--name", NAME, "--repository", "copy/app", "--yes")
    assert "copy/app" not in cloud.az("acr", "repository", "list", "--name", NAME)


def test_a_token_reads_its_repository(cloud: Apart) -> None:
    allowed = ("--repository", IMAGE.partition(":")[0], "content/read")
    made = cloud.az("acr", "token", "create", "--name", "puller", "--registry", NAME, *allowed)
    password = made["credentials"]["passwords"][0]["value"]
    cloud.skopeo("inspect", "--creds", f"puller:{password}", f"docker://{SERVER}/{IMAGE}")
    disable = ("acr", "token", "update", "--name", "puller", "--registry", NAME, "--status", "disabled")
    assert cloud.az(*disable)["status"] == "disabled"
    cloud.skopeo("inspect", "--creds", f"puller:{password}", f"docker://{SERVER}/{IMAGE}", code=1)


def test_a_principal_for_a_pull_secret(cloud: Apart) -> None:
    """The commands of the Azure documentation on pull secrets, unchanged."""
    registry = cloud.az("acr", "show", "--name", NAME, "--query", "id")
    make = ("ad", "sp", "create-for-rbac", "--name", "acr-sp-demo", "--role", "AcrPull", "--scopes", registry)
    password = cloud.az(*make, "--query", "password")
    (app,) = cloud.az("ad", "sp", "list", "--display-name", "acr-sp-demo", "--query", "[].appId")
    (role,) = cloud.az("role", "assignment", "list", "--assignee", app, "--scope", registry)
    assert role["roleDefinitionName"] == "AcrPull"
    image = f"docker://{SERVER}/{IMAGE}"
    cloud.skopeo("inspect", "--creds", f"{app}:{password}", image)
    assert "denied" in cloud.skopeo(
        "copy",
        "--src-creds",
        f"{app}:{password}",
        "--dest-creds",
        f"{app}:{password}",
        image,
        f"{image}-mine",
        code=1,
    )
    cloud.az("role", "assignment", "delete", "--assignee", app, "--scope", registry)
    assert "denied" in cloud.skopeo("inspect", "--creds", f"{app}:{password}", image, code=1)


def test_policies(cloud: Apart) -> None:
    retention = ("acr", "config", "retention", "update", "--registry", NAME, "--type", "UntaggedManifests")
    assert cloud.az(*retention, "--status", "enabled", "--days", "7")["days"] == 7
    hook = ("acr", "webhook", "create", "--name", "hook1", "--registry", NAME, "--uri", "https://127.0.0.1:9/x")
    assert cloud.az(*hook, "--actions", "push", "delete")["status"] == "enabled"


@pytest.fixture(scope="module")
def busybox(cloud: Apart, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An image that runs, and the password of the registry's admin user."""
    folder = tmp_path_factory.mktemp("busybox")
    write_image(folder, [busybox_layer()], {"Cmd": ["sh"]})
    cloud.az("acr", "update", "--name", NAME, "--admin-enabled", "true")
    password: str = cloud.az("acr", "credential", "show", "--name", NAME)["passwords"][0]["value"]
    image = f"{SERVER}/bb:1"
    cloud.skopeo("copy", "--dest-creds", f"{NAME}:{password}", f"oci:{folder}:it", f"docker://{image}")
    return image, password


def _create(name: str, image: str, password: str, *more: str) -> tuple[str, ...]:
    credentials = ("--registry-login-server", SERVER, "--registry-username", NAME, "--registry-password", password)
    size = ("--os-type", "Linux", "--cpu", "1", "--memory", "1")
    return ("container", "create", "-g", "rg", "-n", name, "--image", image, *credentials, *size, *more)


@pytest.mark.timeout(400)  # the container does not end at SIGTERM, so each change takes its grace period
def test_container_groups(cloud: Apart, busybox: tuple[str, str]) -> None:
    image, password = busybox
    group = ("-g", "rg", "-n", "web")
    more = ("--command-line", "sleep 1000", "--ports", "80", "--ip-address", "Public", "--dns-name-label", "my-web-1")
    made = cloud.az(*_create("web", image, password, *more, "-e", "A=b", "--zone", "1"))
    assert (made["provisioningState"], made["ipAddress"]["fqdn"]) == (
        "Succeeded",
        "my-web-1.eastus.azurecontainer.io",
    )
    assert (made["restartPolicy"], made["sku"], made["zones"]) == ("Always", "Standard", ["1"])
    cloud.az("container", "stop", *group)
    assert cloud.az("container", "show", *group)["instanceView"]["state"] == "Stopped"
    cloud.az("container", "start", *group)
    cloud.az("container", "restart", *group)
    assert cloud.az("container", "show", *group)["instanceView"]["state"] == "Running"
    assert "InvalidContainerGroupUpdate" in cloud.az(
        *_create("web", image, password, "--restart-policy", "Never"), code=1
    )
    exported = cloud.data_dir / "web.yaml"
    cloud.run(str(AZ), "container", "export", *group, "-f", str(exported))
    text = exported.read_text().replace(f"username: {NAME}", f"username: {NAME}\n    password: '{password}'")
    exported.write_text(text.replace("value: b", "value: c"))
    updated = cloud.az("container", "create", "-g", "rg", "-f", str(exported))
    assert updated["properties"]["containers"][0]["properties"]["environmentVariables"] == [
        {"name": "A", "value": "c"}
    ]
    cloud.az("container", "delete", *group, "--yes")


def test_container_groups_that_cannot_start_come_to_an_end(cloud: Apart, busybox: tuple[str, str]) -> None:
    image, password = busybox
    for name, secret in (("nope:1", password), ("bb:1", "wrong")):
        assert "(InaccessibleImage)" in cloud.az(*_create("not", f"{SERVER}/{name}", secret), code=1)
    assert "/nope" in cloud.az(*_create("not", image, password, "--command-line", "/nope"), code=1)
    cloud.az("container", "delete", "-g", "rg", "-n", "not", "--yes")


def test_a_container_group_pulls_with_a_managed_identity(cloud: Apart, busybox: tuple[str, str]) -> None:
    image, _ = busybox
    identity = cloud.az("identity", "create", "-g", "rg", "-n", "pull")
    registry = cloud.az("acr", "show", "--name", NAME, "--query", "id")
    principal = ("--assignee-object-id", identity["principalId"], "--assignee-principal-type", "ServicePrincipal")
    cloud.az("role", "assignment", "create", *principal, "--role", "AcrPull", "--scope", registry)
    by = ("--assign-identity", identity["id"], "--acr-identity", identity["id"], "--command-line", "sleep 1000")
    size = ("--os-type", "Linux", "--cpu", "1", "--memory", "1")
    made = cloud.az("container", "create", "-g", "rg", "-n", "mine", "--image", image, *by, *size)
    assert made["identity"]["userAssignedIdentities"][identity["id"]]["clientId"] == identity["clientId"]
    cloud.az("container", "delete", "-g", "rg", "-n", "mine", "--yes")
