"""What an ordinary node has and the virtual one lacks: the table of the fields of a pod there, where it differs."""

from __future__ import annotations

from cumulet.common.kubernetes.support import Kind, honoured, stored
from cumulet.node.pod_fields import POD_SPEC, VOLUME

CLAIM = Kind(
    "PersistentVolumeClaimVolumeSource",
    {
        "claimName": honoured("a volume of the driver disk.csi.azure.com"),
        "readOnly": honoured(),
    },
)
ORDINARY_VOLUME = Kind(
    "Volume",
    {
        **VOLUME.fields,
        "ephemeral": honoured(
            "a claim of the pod's own",
            kind=Kind(
                "EphemeralVolumeSource",
                {"volumeClaimTemplate": stored("read by the controller that makes the claim")},
            ),
        ),
        "persistentVolumeClaim": honoured(kind=CLAIM),
    },
    name="Volume on an ordinary node",
)
ORDINARY_POD_SPEC = Kind(
    "PodSpec",
    {**POD_SPEC.fields, "volumes": honoured(kind=ORDINARY_VOLUME)},
    name="PodSpec on an ordinary node",
)
