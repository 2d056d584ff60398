"""The table of the fields of a pod's status: which the node writes. `docs/pod-fields.md` is generated from it.

`honoured` fields are written by the node, `stored` ones by others or by nobody.
"""

from __future__ import annotations

from cumulet.common.kubernetes.support import Kind, honoured, stored

_NO_DEVICES = "virtual nodes have no devices"
_RESIZE = "the container's resources are in the status of the container"

CONDITION = Kind(
    "PodCondition",
    {
        "lastProbeTime": honoured("null"),
        "lastTransitionTime": honoured(),
        "message": honoured(),
        "observedGeneration": honoured(),
        "reason": honoured(),
        "status": honoured(),
        "type": honoured("conditions of others are left alone"),
    },
)
STATE = Kind(
    "ContainerState",
    {
        "running": honoured(kind=Kind("ContainerStateRunning", {"startedAt": honoured()})),
        "terminated": honoured(
            kind=Kind(
                "ContainerStateTerminated",
                {
                    "containerID": honoured(),
                    "exitCode": honoured("128 and the number of the signal that ended the container"),
                    "finishedAt": honoured(),
                    "message": honoured("the termination message"),
                    "reason": honoured(),
                    "signal": stored("the exit code says it"),
                    "startedAt": honoured(),
                },
            )
        ),
        "waiting": honoured(kind=Kind("ContainerStateWaiting", {"message": honoured(), "reason": honoured()})),
    },
)
MOUNT_STATUS = Kind(
    "VolumeMountStatus",
    {
        "mountPath": honoured(),
        "name": honoured(),
        "readOnly": honoured(),
        "recursiveReadOnly": honoured("Disabled, for read-only mounts"),
        "volumeStatus": stored("no volume is an image"),
    },
)
RESOURCES = Kind(
    "ResourceRequirements",
    {"claims": stored(_NO_DEVICES), "limits": honoured(), "requests": honoured()},
    name="ResourceRequirements (status)",
)
CONTAINER_STATUS = Kind(
    "ContainerStatus",
    {
        "allocatedResources": honoured("what the provider has accepted of a resize"),
        "allocatedResourcesStatus": stored(_NO_DEVICES),
        "containerID": honoured(),
        "image": honoured(),
        "imageID": honoured(),
        "lastState": honoured(kind=STATE),
        "name": honoured(),
        "ready": honoured(),
        "resources": honoured("of a container that has started", kind=RESOURCES),
        "restartCount": honoured(),
        "started": honoured(),
        "state": honoured(kind=STATE),
        "stopSignal": stored("the image's, or SIGTERM"),
        "user": honoured(
            "of a container that has started",
            kind=Kind(
                "ContainerUser",
                {
                    "linux": honoured(
                        kind=Kind(
                            "LinuxContainerUser",
                            {"gid": honoured(), "supplementalGroups": honoured(), "uid": honoured()},
                        )
                    )
                },
            ),
        ),
        "volumeMounts": honoured(kind=MOUNT_STATUS),
    },
)
POD_STATUS = Kind(
    "PodStatus",
    {
        "allocatedResources": stored(_RESIZE),
        "conditions": honoured(kind=CONDITION),
        "containerStatuses": honoured(kind=CONTAINER_STATUS),
        "ephemeralContainerStatuses": honoured(kind=CONTAINER_STATUS),
        "extendedResourceClaimStatus": stored(_NO_DEVICES),
        "hostIP": honoured("the node's address"),
        "hostIPs": honoured(kind=Kind("HostIP", {"ip": honoured()})),
        "initContainerStatuses": honoured(kind=CONTAINER_STATUS),
        "message": honoured(),
        "nodeAllocatableResourceClaimStatuses": stored(_NO_DEVICES),
        "nominatedNodeName": stored("written by the scheduler"),
        "observedGeneration": honoured(),
        "phase": honoured(),
        "podIP": honoured(),
        "podIPs": honoured("one IPv4 address", kind=Kind("PodIP", {"ip": honoured()})),
        "qosClass": stored("written by the API server"),
        "reason": honoured(),
        "resize": stored("deprecated; conditions tell of a resize"),
        "resourceClaimStatuses": stored(_NO_DEVICES),
        "resources": stored(_RESIZE),
        "startTime": honoured(),
    },
)
