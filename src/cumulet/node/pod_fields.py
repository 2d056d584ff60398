"""The table of the fields of a pod: how the virtual node treats each. `docs/pod-fields.md` is generated from it.

To change how a field is treated, change its entry: `honoured(NOTE)`, `stored(NOTE)` or `refused(WHAT TO DO INSTEAD)`, then run
`scripts/make_pod_fields.py`. `only=` names the values that are honoured; others are refused, with `instead=`.
"""

from __future__ import annotations

from cumulet.common.kubernetes.support import Kind, honoured, refused, stored

_SCHEDULER = "read by the scheduler"
_LINUX = "containers run on Linux; remove it"
_NO_DISKS = "nodes attach no such disks; use a claim of the class default on an ordinary node, or an emptyDir for temporary files"
_NO_CLAIMS = (
    "virtual node does not support persistent volumes; run the pod on an ordinary node (`cumulet up --node-pool 1`), or use an "
    "emptyDir for temporary files"
)
_NO_FILE_SYSTEMS = "nodes mount no file systems of the network; read the data over its service's own protocol"
_NO_DEVICES = "nodes have no devices; remove it"

# Commands and requests: of probes and of hooks.

EXEC = Kind("ExecAction", {"command": honoured()})
HTTP_HEADER = Kind("HTTPHeader", {"name": honoured(), "value": honoured()})
HTTP_GET = Kind(
    "HTTPGetAction",
    {
        "host": honoured("not an address of this machine or of the cluster; by default the pod's address"),
        "httpHeaders": honoured(kind=HTTP_HEADER),
        "path": honoured(),
        "port": honoured("a number, or the name of a port of the container"),
        "scheme": honoured(only=("HTTP", "HTTPS"), instead="use HTTP or HTTPS"),
    },
)
TCP_SOCKET = Kind(
    "TCPSocketAction",
    {
        "host": honoured("not an address of this machine or of the cluster; by default the pod's address"),
        "port": honoured("a number, or the name of a port of the container"),
    },
)
GRPC = Kind("GRPCAction", {"port": honoured(), "service": honoured()})
SLEEP = Kind("SleepAction", {"seconds": honoured()})

PROBE = Kind(
    "Probe",
    {
        "exec": honoured(kind=EXEC),
        "failureThreshold": honoured(),
        "grpc": honoured(kind=GRPC),
        "httpGet": honoured(kind=HTTP_GET),
        "initialDelaySeconds": honoured(),
        "periodSeconds": honoured(),
        "successThreshold": honoured(),
        "tcpSocket": honoured(kind=TCP_SOCKET),
        "terminationGracePeriodSeconds": honoured(),
        "timeoutSeconds": honoured(),
    },
)

HANDLER = Kind(
    "LifecycleHandler",
    {
        "exec": honoured(kind=EXEC),
        "httpGet": honoured(kind=HTTP_GET),
        "sleep": honoured(kind=SLEEP),
        "tcpSocket": honoured("such a hook always fails, as in a kubelet", kind=TCP_SOCKET),
    },
)
LIFECYCLE = Kind(
    "Lifecycle",
    {
        "postStart": honoured(kind=HANDLER),
        "preStop": honoured(kind=HANDLER),
        "stopSignal": honoured(
            "kept by API servers with the feature gate ContainerStopSignals; by default the image's STOPSIGNAL"
        ),
    },
)

# The environment.

_KEY = {"key": honoured(), "name": honoured(), "optional": honoured()}
OBJECT_FIELD = Kind(
    "ObjectFieldSelector",
    {
        "apiVersion": honoured("version v1"),
        "fieldPath": honoured("a path that is not known is refused; container instances put in `status.podIP`"),
    },
)
RESOURCE_FIELD = Kind(
    "ResourceFieldSelector",
    {
        "containerName": honoured(),
        "divisor": honoured(),
        "resource": honoured("an unset limit is what the node can allocate"),
    },
)
VALUE_FROM = Kind(
    "EnvVarSource",
    {
        "configMapKeyRef": honoured(kind=Kind("ConfigMapKeySelector", _KEY)),
        "fieldRef": honoured(kind=OBJECT_FIELD),
        "fileKeyRef": refused("use a config map or a secret"),
        "resourceFieldRef": honoured(kind=RESOURCE_FIELD),
        "secretKeyRef": honoured("becomes a secure value", kind=Kind("SecretKeySelector", _KEY)),
    },
)
VARIABLE = Kind(
    "EnvVar", {"name": honoured(), "value": honoured("`$(NAME)` is expanded"), "valueFrom": honoured(kind=VALUE_FROM)}
)
_NAMED = {"name": honoured(), "optional": honoured()}
VARIABLES_FROM = Kind(
    "EnvFromSource",
    {
        "configMapRef": honoured(kind=Kind("ConfigMapEnvSource", _NAMED)),
        "prefix": honoured(),
        "secretRef": honoured("becomes secure values", kind=Kind("SecretEnvSource", _NAMED)),
    },
)

# Ports, resources and mounts.

PORT = Kind(
    "ContainerPort",
    {
        "containerPort": honoured(),
        "hostIP": refused("the node has no ports of its own; use a Service of the type LoadBalancer"),
        "hostPort": refused("the node has no ports of its own; use a Service of the type LoadBalancer", unless=(0,)),
        "name": honoured("names the port for probes and Services"),
        "protocol": honoured(only=("TCP", "UDP"), instead="use TCP or UDP"),
    },
)
_AMOUNTS = ("cpu", "memory", "ephemeral-storage")
_AMOUNT_INSTEAD = "nodes have cpu, memory and ephemeral-storage only; remove it"
RESOURCES = Kind(
    "ResourceRequirements",
    {
        "claims": refused(_NO_DEVICES),
        "limits": honoured(
            "to the byte and to the thousandth of a CPU; what exceeds the limit of the disk is evicted",
            only=_AMOUNTS,
            instead=_AMOUNT_INSTEAD,
        ),
        "requests": honoured(
            "the share of the processors; billed as ACI rounds them, and as 1 CPU and 1.5 GB where absent",
            only=_AMOUNTS,
            instead=_AMOUNT_INSTEAD,
        ),
    },
)
RESIZE_POLICY = Kind(
    "ContainerResizePolicy",
    {
        "resourceName": honoured(),
        "restartPolicy": honoured(),
    },
)
MOUNT = Kind(
    "VolumeMount",
    {
        "mountPath": honoured("a relative path starts at the root"),
        "mountPropagation": honoured(only=("None",), instead="a group shares no mounts with its machine; remove it"),
        "name": honoured(),
        "readOnly": honoured(),
        "recursiveReadOnly": honoured("a volume has no mounts below it"),
        "subPath": honoured(),
        "subPathExpr": honoured(),
    },
)

# Security.

APP_ARMOR = Kind(
    "AppArmorProfile",
    {
        "localhostProfile": refused("AppArmor is not enabled on the node; remove it"),
        "type": honoured(only=("Unconfined",), instead="AppArmor is not enabled on the node; use a seccomp profile"),
    },
)
SECCOMP = Kind(
    "SeccompProfile",
    {
        "localhostProfile": honoured("a file beneath `seccomp` in the data directory"),
        "type": honoured(
            only=("RuntimeDefault", "Localhost"), instead="containers share a kernel; use RuntimeDefault or Localhost"
        ),
    },
)
CAPABILITIES = Kind(
    "Capabilities",
    {
        "add": honoured("container instances refuse capabilities that reach beyond the group, by name"),
        "drop": honoured(),
    },
)
_SE_LINUX = "SELinux is not enabled on the node; remove it"
SECURITY_CONTEXT = Kind(
    "SecurityContext",
    {
        "allowPrivilegeEscalation": honoured(),
        "appArmorProfile": honoured(kind=APP_ARMOR),
        "capabilities": honoured(kind=CAPABILITIES),
        "privileged": refused("containers share a kernel; add the capabilities that it needs"),
        "procMount": honoured(only=("Default",), instead="use Default"),
        "readOnlyRootFilesystem": honoured(),
        "runAsGroup": honoured(),
        "runAsNonRoot": honoured(),
        "runAsUser": honoured(),
        "seLinuxOptions": refused(_SE_LINUX, unless=({},)),
        "seccompProfile": honoured(kind=SECCOMP),
        "windowsOptions": refused(_LINUX, unless=({},)),
    },
)
SYSCTL = Kind("Sysctl", {"name": honoured(), "value": honoured("numbers")})
POD_SECURITY_CONTEXT = Kind(
    "PodSecurityContext",
    {
        "appArmorProfile": honoured(kind=APP_ARMOR),
        "fsGroup": honoured(
            "a supplemental group, and the group of the volumes' files; shares of Azure Files keep theirs"
        ),
        "fsGroupChangePolicy": stored("no effect, as in a kubelet: the volumes are new for each pod"),
        "runAsGroup": honoured(),
        "runAsNonRoot": honoured(),
        "runAsUser": honoured(),
        "seLinuxChangePolicy": refused(_SE_LINUX),
        "seLinuxOptions": refused(_SE_LINUX, unless=({},)),
        "seccompProfile": honoured(kind=SECCOMP),
        "supplementalGroups": honoured(),
        "supplementalGroupsPolicy": honoured(only=("Merge", "Strict"), instead="use Merge or Strict"),
        "sysctls": honoured("of the safe set; others fail the pod with the reason SysctlForbidden", kind=SYSCTL),
        "windowsOptions": refused(_LINUX, unless=({},)),
    },
)

# Containers.

RESTART_RULE = Kind(
    "ContainerRestartRule",
    {
        "action": honoured(only=("Restart",), instead="use Restart"),
        "exitCodes": honoured(
            kind=Kind("ContainerRestartRuleOnExitCodes", {"operator": honoured(), "values": honoured()})
        ),
    },
)
_CONTAINER = {
    "args": honoured(),
    "command": honoured(),
    "env": honoured(kind=VARIABLE),
    "envFrom": honoured(kind=VARIABLES_FROM),
    "image": honoured(),
    "imagePullPolicy": honoured(),
    "lifecycle": honoured(kind=LIFECYCLE),
    "livenessProbe": honoured(kind=PROBE),
    "name": honoured(),
    "ports": honoured(kind=PORT),
    "readinessProbe": honoured(kind=PROBE),
    "resizePolicy": honoured("of a resize while the container runs", kind=RESIZE_POLICY),
    "resources": honoured(kind=RESOURCES),
    "restartPolicy": honoured(only=("Always", "OnFailure", "Never"), instead="use Always, OnFailure or Never"),
    "restartPolicyRules": honoured(kind=RESTART_RULE),
    "securityContext": honoured(kind=SECURITY_CONTEXT),
    "startupProbe": honoured(kind=PROBE),
    "stdin": honoured(),
    "stdinOnce": honoured(),
    "terminationMessagePath": honoured("a path outside /proc and /sys"),
    "terminationMessagePolicy": honoured(
        only=("File", "FallbackToLogsOnError"), instead="use File or FallbackToLogsOnError"
    ),
    "tty": honoured("standard output and error are one terminal"),
    "volumeDevices": refused(_NO_DISKS),
    "volumeMounts": honoured(kind=MOUNT),
    "workingDir": honoured(),
}
CONTAINER = Kind("Container", _CONTAINER)
INIT_CONTAINER = Kind(
    "Container",
    {
        **_CONTAINER,
        "ports": stored("shown; an init container has the addresses and ports of its group", kind=PORT),
        "resources": honoured("not billed: the group pays for its containers", kind=RESOURCES),
        "restartPolicy": honoured(
            "Always makes a sidecar", only=("Always", "OnFailure", "Never"), instead="use Always, OnFailure or Never"
        ),
    },
    name="Container (init)",
)
_NOT_EPHEMERAL = "an ephemeral container has none; remove it"
EPHEMERAL_CONTAINER = Kind(
    "EphemeralContainer",
    {
        **_CONTAINER,
        **{
            name: refused(_NOT_EPHEMERAL, unless=({}, []))
            for name in (
                "lifecycle",
                "livenessProbe",
                "ports",
                "readinessProbe",
                "resizePolicy",
                "resources",
                "restartPolicy",
                "restartPolicyRules",
                "startupProbe",
            )
        },
        "targetContainerName": honoured("its processes are shared"),
    },
)

# Volumes.

KEY_TO_PATH = Kind(
    "KeyToPath",
    {"key": honoured(), "mode": honoured(), "path": honoured()},
)
_ITEMS = {"items": honoured(kind=KEY_TO_PATH), "optional": honoured()}
DOWNWARD_FILE = Kind(
    "DownwardAPIVolumeFile",
    {
        "fieldRef": honoured(kind=OBJECT_FIELD),
        "mode": honoured(),
        "path": honoured(),
        "resourceFieldRef": honoured(kind=RESOURCE_FIELD),
    },
)
PROJECTION = Kind(
    "VolumeProjection",
    {
        "clusterTrustBundle": refused("use a config map with the certificates"),
        "configMap": honoured(kind=Kind("ConfigMapProjection", {**_ITEMS, "name": honoured()})),
        "downwardAPI": honoured(kind=Kind("DownwardAPIProjection", {"items": honoured(kind=DOWNWARD_FILE)})),
        "podCertificate": refused("use a secret with the certificate and its key"),
        "secret": honoured(kind=Kind("SecretProjection", {**_ITEMS, "name": honoured()})),
        "serviceAccountToken": honoured(
            kind=Kind(
                "ServiceAccountTokenProjection",
                {"audience": honoured(), "expirationSeconds": honoured("at least 600"), "path": honoured()},
            )
        ),
    },
)
EMPTY_DIR = Kind(
    "EmptyDirVolumeSource",
    {
        "medium": honoured(only=("Memory",), instead="use Memory, or none"),
        "sizeLimit": honoured("on disk by eviction; in memory, at most the memory of the group"),
    },
)
AZURE_FILE = Kind(
    "AzureFileVolumeSource",
    {
        "readOnly": honoured(),
        "secretName": honoured("with `azurestorageaccountname` and `azurestorageaccountkey`"),
        "shareName": honoured(),
    },
)
CSI = Kind(
    "CSIVolumeSource",
    {
        "driver": honoured(
            only=("file.csi.azure.com",),
            instead="nodes have no other inline CSI drivers; use file.csi.azure.com, a secret, a config map or an emptyDir",
        ),
        "fsType": stored("a share has the file system of its server"),
        "nodePublishSecretRef": refused("name the secret in volumeAttributes.secretName"),
        "readOnly": honoured(),
        "volumeAttributes": honoured(
            only=("shareName", "secretName"), instead="a share has its name and its secret only; remove it"
        ),
    },
)
GIT_REPO = Kind("GitRepoVolumeSource", {"directory": honoured(), "repository": honoured(), "revision": honoured()})
VOLUME = Kind(
    "Volume",
    {
        "awsElasticBlockStore": refused(_NO_DISKS),
        "azureDisk": refused(_NO_DISKS),
        "azureFile": honoured(kind=AZURE_FILE),
        "cephfs": refused(_NO_FILE_SYSTEMS),
        "cinder": refused(_NO_DISKS),
        "configMap": honoured(
            kind=Kind("ConfigMapVolumeSource", {**_ITEMS, "defaultMode": honoured(), "name": honoured()})
        ),
        "csi": honoured(kind=CSI),
        "downwardAPI": honoured(
            kind=Kind("DownwardAPIVolumeSource", {"defaultMode": honoured(), "items": honoured(kind=DOWNWARD_FILE)})
        ),
        "emptyDir": honoured(kind=EMPTY_DIR),
        "ephemeral": refused(_NO_CLAIMS),
        "fc": refused(_NO_DISKS),
        "flexVolume": refused(_NO_DISKS),
        "flocker": refused(_NO_DISKS),
        "gcePersistentDisk": refused(_NO_DISKS),
        "gitRepo": honoured(kind=GIT_REPO),
        "glusterfs": refused(_NO_FILE_SYSTEMS),
        "hostPath": refused(
            "a node has no file system that pods could share; use an emptyDir, a config map or a secret"
        ),
        "image": refused("copy the files in an init container of that image, into an emptyDir"),
        "iscsi": refused(_NO_DISKS),
        "name": honoured(),
        "nfs": refused(_NO_FILE_SYSTEMS),
        "persistentVolumeClaim": refused(_NO_CLAIMS),
        "photonPersistentDisk": refused(_NO_DISKS),
        "portworxVolume": refused(_NO_DISKS),
        "projected": honoured(
            kind=Kind("ProjectedVolumeSource", {"defaultMode": honoured(), "sources": honoured(kind=PROJECTION)})
        ),
        "quobyte": refused(_NO_FILE_SYSTEMS),
        "rbd": refused(_NO_DISKS),
        "scaleIO": refused(_NO_DISKS),
        "secret": honoured(
            kind=Kind("SecretVolumeSource", {**_ITEMS, "defaultMode": honoured(), "secretName": honoured()})
        ),
        "storageos": refused(_NO_DISKS),
        "vsphereVolume": refused(_NO_DISKS),
    },
)

# The pod.

HOST_ALIAS = Kind("HostAlias", {"hostnames": honoured(), "ip": honoured()})
DNS = Kind(
    "PodDNSConfig",
    {
        "nameservers": honoured(),
        "options": honoured(kind=Kind("PodDNSConfigOption", {"name": honoured(), "value": honoured()})),
        "searches": honoured(),
    },
)

_NO_HOST = "a node has no {} that pods could share; remove it"
POD_SPEC = Kind(
    "PodSpec",
    {
        "activeDeadlineSeconds": honoured(),
        "affinity": stored(_SCHEDULER),
        "automountServiceAccountToken": honoured("by admission, which adds the volume"),
        "containers": honoured(kind=CONTAINER),
        "dnsConfig": honoured(
            "added to what dnsPolicy gives; at most 3 name servers and 32 search domains", kind=DNS
        ),
        "dnsPolicy": honoured(
            "the cluster's name server, its domains and `ndots:5`; `Default`: the resolver of the machine; `None`: only dnsConfig",
            only=("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
            instead="use ClusterFirst",
        ),
        "enableServiceLinks": honoured(),
        "ephemeralContainers": honoured(
            "added to the running group; with Azure's provider, ended with a reason", kind=EPHEMERAL_CONTAINER
        ),
        "hostAliases": honoured("in `/etc/hosts`", kind=HOST_ALIAS),
        "hostIPC": refused(_NO_HOST.format("IPC namespace")),
        "hostNetwork": refused("a node has no network that pods could share; use a Service"),
        "hostPID": refused(_NO_HOST.format("processes")),
        "hostUsers": honoured(
            "false, when user namespaces are on",
            only=(False,),
            instead="a container group has users of its own; remove it",
        ),
        "hostname": honoured(),
        "hostnameOverride": honoured(),
        "imagePullSecrets": honoured(kind=Kind("LocalObjectReference", {"name": honoured()})),
        "initContainers": honoured(kind=INIT_CONTAINER),
        "nodeName": honoured("set by the scheduler"),
        "nodeSelector": stored(_SCHEDULER),
        "os": honoured(kind=Kind("PodOS", {"name": honoured(only=("linux",), instead=_LINUX)})),
        "overhead": stored("read by the scheduler and by quotas; container groups are billed without it"),
        "preemptionPolicy": stored(_SCHEDULER),
        "priority": stored(_SCHEDULER),
        "priorityClassName": stored("read by admission, which sets priority"),
        "readinessGates": honoured(
            "the condition Ready waits for them", kind=Kind("PodReadinessGate", {"conditionType": honoured()})
        ),
        "resourceClaims": refused(_NO_DEVICES),
        "resources": refused("set the resources of each container", unless=({},)),
        "restartPolicy": honoured(only=("Always", "OnFailure", "Never"), instead="use Always, OnFailure or Never"),
        "runtimeClassName": refused("container groups have one runtime, runc; remove it"),
        "schedulerName": stored("read by the scheduler of that name"),
        "schedulingGates": stored(_SCHEDULER, kind=Kind("PodSchedulingGate", {"name": stored(_SCHEDULER)})),
        "schedulingGroup": refused("the scheduler schedules each pod alone; remove it"),
        "securityContext": honoured(kind=POD_SECURITY_CONTEXT),
        "serviceAccount": stored("the deprecated alias of serviceAccountName, which the API server keeps equal"),
        "serviceAccountName": honoured(),
        "setHostnameAsFQDN": honoured(),
        "shareProcessNamespace": honoured("a pause container has the first process"),
        "subdomain": honoured(
            "in `/etc/hosts`; the endpoints controller reads it too, for the names of a headless Service"
        ),
        "terminationGracePeriodSeconds": honoured(),
        "tolerations": stored("read by the scheduler, and by the controller that evicts by taint"),
        "topologySpreadConstraints": stored(_SCHEDULER),
        "volumes": honoured(kind=VOLUME),
    },
)
