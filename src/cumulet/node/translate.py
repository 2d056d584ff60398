"""Translates a pod to a container group, as the ACI provider of the virtual kubelet does, without its defects."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cumulet.common.ascii import fold
from cumulet.common.config import Config
from cumulet.common.kubernetes.objects import Container, EphemeralContainer, Pod, VolumeMount
from cumulet.node.credentials import Credentials
from cumulet.node.environment import Environment, Variables
from cumulet.node.errors import MissingError
from cumulet.node.lifecycle import add_lifecycle
from cumulet.node.names import pod_dns, pod_names
from cumulet.node.phase import is_sidecar
from cumulet.node.resource import (
    ContainerGroup,
    GroupContainer,
    GroupContainerProperties,
    GroupMount,
    GroupPort,
    GroupProperties,
    ProcessChanges,
)
from cumulet.node.resources import asks_for_resources, billed_resources, exact_resources, restarting_policies
from cumulet.node.security import pod_security_context, security_context
from cumulet.node.volumes import Volumes

_NAME_LIMIT = 63


class Sources(NamedTuple):
    """What resolves the references of a pod; `machine` is the virtual machine that its group runs on, if it has one."""

    environment: Environment
    volumes: Volumes
    credentials: Credentials
    machine: str | None = None


def group_name(pod: Pod) -> str:
    """Return `<namespace>-<pod>-<part of the uid>`, which no other pod has, not even a later one of the same name."""
    metadata = pod["metadata"]
    mark = hashlib.sha256(metadata["uid"].encode()).hexdigest()[:8]
    base = fold(f"{metadata['namespace']}-{metadata['name']}".replace(".", "-"))
    return f"{base[: _NAME_LIMIT - len(mark) - 1].rstrip('-')}-{mark}"


def tags_of(pod: Pod, config: Config) -> dict[str, str]:
    """Return the tags that identify the pod of a group; `ClusterName` tells the groups of clusters apart."""
    metadata = pod["metadata"]
    return {
        "PodName": metadata["name"],
        "Namespace": metadata["namespace"],
        "NodeName": config.node_name,
        "UID": metadata["uid"],
        "CreationTimestamp": metadata["creationTimestamp"],
        "ClusterName": config.cluster,
    }


async def container_group(pod: Pod, sources: Sources, config: Config) -> ContainerGroup:
    """Return the container group of a pod. Raises `MissingError`, `UnsupportedError`."""
    spec = pod["spec"]
    volumes = [await sources.volumes.of(pod, volume) for volume in spec.get("volumes") or ()]
    ports = [port for container in spec["containers"] for port in _ports(container)]
    names = pod_names(pod)
    properties: GroupProperties = {
        "containers": [_container(pod, item, sources, config, init=False) for item in spec["containers"]],
        "initContainers": [
            _container(pod, item, sources, config, init=True) for item in spec.get("initContainers") or ()
        ],
        "imageRegistryCredentials": sources.credentials.of(pod).found,
        "restartPolicy": spec.get("restartPolicy", "Always"),
        "osType": "Linux",
        "volumes": volumes,
        "ipAddress": {"type": "Private", "ports": ports},
        "subnetIds": [{"id": config.node_subnet_id}],
        "terminationGracePeriodSeconds": min(spec.get("terminationGracePeriodSeconds", 30), 2**31 - 1),
        "pod": True,
        "labels": pod["metadata"].get("labels") or {},
        "hostname": names.hostname,
        "dnsConfig": pod_dns(pod, config).config,
    }
    if names.domain is not None:
        properties["subdomain"] = names.domain
        if spec.get("setHostnameAsFQDN"):
            properties["setHostnameAsFQDN"] = True
    if aliases := spec.get("hostAliases"):
        properties["hostAliases"] = [{"ip": item["ip"], "hostnames": item.get("hostnames") or []} for item in aliases]
    if above := pod_security_context(pod):
        properties["securityContext"] = above
    if spec.get("shareProcessNamespace"):
        properties["shareProcessNamespace"] = True
    if seconds := spec.get("activeDeadlineSeconds"):
        properties["activeDeadlineSeconds"] = min(seconds, 2**31 - 1)
    if spec.get("hostUsers") is False:
        properties["hostUsers"] = False
    group: ContainerGroup = {"location": config.location, "tags": tags_of(pod, config), "properties": properties}
    if sources.machine is not None:
        properties["virtualMachine"] = sources.machine
    if (puller := sources.credentials.puller) is not None and any(
        "identity" in item for item in properties["imageRegistryCredentials"]
    ):
        group["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {puller.identity: {}}}
        properties["identityAcls"] = {"defaultAccess": "System"}  # the identity is the kubelet's, not the pod's
    return group


def ephemeral_container(pod: Pod, container: EphemeralContainer, sources: Sources, config: Config) -> GroupContainer:
    """Return an ephemeral container of a group. Raises `MissingError`, `UnsupportedError`."""
    common: Container = {name: value for name, value in container.items() if name != "targetContainerName"}  # type: ignore[assignment]
    translated = _container(pod, common, sources, config, init=True)
    if target := container.get("targetContainerName"):
        translated["properties"]["targetContainerName"] = target
    return translated


def _container(pod: Pod, container: Container, sources: Sources, config: Config, *, init: bool) -> GroupContainer:
    variables = sources.environment.of(pod, container)
    changing = process(container, variables)
    properties: GroupContainerProperties = {
        "image": container["image"],
        "environmentVariables": changing["environmentVariables"],
        "volumeMounts": [_mount(container, mount, variables) for mount in container.get("volumeMounts") or ()],
    }
    if policy := container.get("imagePullPolicy"):
        properties["imagePullPolicy"] = policy
    if "command" in changing:
        properties["command"] = changing["command"]
    if "args" in changing:
        properties["args"] = changing["args"]
    if variables.late:
        properties["expandFields"] = True
    if folder := container.get("workingDir"):
        properties["workingDir"] = folder
    if context := security_context(pod, container, config):
        properties["securityContext"] = context
    properties["resourceRequirements"] = exact_resources(container)
    if policies := restarting_policies(container):
        properties["resizePolicy"] = policies
    if container.get("stdin"):
        properties["stdin"] = True
        if container.get("stdinOnce"):
            properties["stdinOnce"] = True
    if container.get("tty"):
        properties["tty"] = True
    add_lifecycle(container, properties)
    if not init:
        properties["ports"] = _ports(container)
    if not init or (is_sidecar(container) and asks_for_resources(container)):
        properties["resources"] = billed_resources(container)
    return {"name": container["name"], "properties": properties}


def process(container: Container, variables: Variables) -> ProcessChanges:
    """Return the variables of a container, and its command and arguments with their values."""
    translated: ProcessChanges = {"environmentVariables": variables.listed()}
    if command := container.get("command"):
        translated["command"] = [variables.expand(word) for word in command]
    if args := container.get("args"):
        translated["args"] = [variables.expand(word) for word in args]
    return translated


def _ports(container: Container) -> list[GroupPort]:
    return [
        {"port": port["containerPort"], "protocol": port.get("protocol", "TCP")}
        for port in container.get("ports") or ()
    ]


def _mount(container: Container, mount: VolumeMount, variables: Variables) -> GroupMount:
    """Translate a mount; a relative mount path starts at the root, as in a kubelet. Raises `MissingError`."""
    translated: GroupMount = {
        "name": mount["name"],
        "mountPath": mount["mountPath"] if mount["mountPath"].startswith("/") else f"/{mount['mountPath']}",
        "readOnly": bool(mount.get("readOnly")),
    }
    path = variables.literal(mount.get("subPath") or "")
    if expression := mount.get("subPathExpr"):
        if missing := variables.unset_in(expression):
            raise MissingError(f"missing value for {', '.join(missing)}", container["name"])
        path = variables.expand(expression)
        if path.startswith("/"):
            raise MissingError(f"error SubPath `{path}` must not be an absolute path", container["name"])
        if ".." in path.split("/"):
            raise MissingError(f"unable to provision SubPath `{path}`: must not contain '..'", container["name"])
    if path:
        translated["subPath"] = path
    return translated
