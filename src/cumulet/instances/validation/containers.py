"""Checks of a container: image, process, ports, mounts and security context."""

from __future__ import annotations

from cumulet.common.arm import ArmError
from cumulet.common.image_reference import parse
from cumulet.instances.model.arguments import ArgumentsError, check_arguments, is_variable_name
from cumulet.instances.model.properties import Container
from cumulet.instances.security import context as security_context
from cumulet.instances.validation.lifecycle import check_lifecycle
from cumulet.instances.validation.paths import KERNEL, is_absolute, is_relative, is_within, normalized
from cumulet.instances.validation.pods import check_requirements
from cumulet.instances.validation.text import invalid, quoted

_MOUNTS, _PORTS = 100, 1000
#: The only folder of the kernel's that a volume may replace.
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  (a container's own)


def check_container(container: Container, path: str, volumes: set[str]) -> None:
    """Raise `ArmError` for a property that is not valid; `volumes` are the names of the group's volumes."""
    properties = container.properties
    try:
        parse(properties.image)
    except ValueError:
        raise ArmError(
            400,
            "InvalidImageName",
            f"The image '{quoted(properties.image)}' in container '{container.name}' is not a valid image reference.",
            target=f"{path}.image",
        ) from None
    _check_process(container, path)
    if len(properties.ports) > _PORTS:
        raise invalid(f"{path}.ports", f"The container '{container.name}' has more than {_PORTS} ports.")
    if properties.working_dir is not None and (
        not is_absolute(properties.working_dir) or is_within(properties.working_dir, KERNEL)
    ):
        raise invalid(
            f"{path}.workingDir",
            f"The workingDir '{quoted(properties.working_dir)}' is not an absolute path outside {', '.join(KERNEL)}.",
        )
    _check_mounts(container, f"{path}.volumeMounts", volumes)
    check_lifecycle(properties, path, init=path.startswith("properties.initContainers"))
    if properties.resource_requirements is not None:
        check_requirements(container.name, properties.resource_requirements, f"{path}.resourceRequirements")
    _check_security(container, f"{path}.securityContext")


def _check_process(container: Container, path: str) -> None:
    properties = container.properties
    for number, variable in enumerate(properties.environment_variables):
        if not is_variable_name(variable.name):
            raise invalid(
                f"{path}.environmentVariables[{number}].name",
                f"The name '{quoted(variable.name)}' of an environment variable in container '{container.name}' is not valid.",
            )
    variables = [f"{item.name}={item.text}" for item in properties.environment_variables]
    try:
        check_arguments([*(properties.command or ()), *(properties.args or ()), *variables])
    except ArgumentsError as error:
        raise invalid(
            path,
            f"The command, args and environment variables of container '{container.name}' are not valid: {error}.",
        ) from None


def _check_mounts(container: Container, path: str, volumes: set[str]) -> None:
    mounts = container.properties.volume_mounts
    if len(mounts) > _MOUNTS:
        raise invalid(path, f"The container '{container.name}' has more than {_MOUNTS} volume mounts.")
    taken: set[str] = set()
    for number, mount in enumerate(mounts):
        if mount.name not in volumes:
            raise invalid(
                f"{path}[{number}].name",
                f"The volume '{quoted(mount.name)}' of container '{container.name}' is not a volume of the group.",
            )
        where, target = mount.mount_path, f"{path}[{number}].mountPath"
        if not is_absolute(where) or ":" in where:
            raise invalid(
                target,
                f"The mount path '{quoted(where)}' must be absolute, without '..', ':' and control characters.",
            )
        normal = normalized(where)
        if normal == "/" or (is_within(normal, KERNEL) and normal != _SHARED_MEMORY):
            raise invalid(target, f"The mount path '{quoted(where)}' cannot be replaced by a volume.")
        if normal in taken:
            raise invalid(target, f"The mount path '{quoted(where)}' of container '{container.name}' is used twice.")
        taken.add(normal)
        if mount.sub_path is not None and not is_relative(mount.sub_path):
            raise invalid(
                f"{path}[{number}].subPath",
                f"The subPath '{quoted(mount.sub_path)}' must be relative, without '..' and control characters.",
            )


def _check_security(container: Container, path: str) -> None:
    try:
        security_context.parse(container.properties.security_context)
    except security_context.SecurityContextError as error:
        target = f"{path}.{error.field}" if error.field else path
        raise ArmError(
            400,
            "InvalidSecurityContext",
            f"The securityContext of container '{container.name}' is not supported: {target}: {error}.",
            target=target,
        ) from None
