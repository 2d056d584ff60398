"""The resource of a container group (REST reference 2023-05-01), with the properties that the node writes and reads."""

from __future__ import annotations

from typing import Literal, Required, TypedDict

from cumulet.common.kubernetes.objects import (
    Capabilities,
    ContainerResizePolicy,
    ContainerRestartRule,
    ContainerUser,
    HostAlias,
    HTTPHeader,
    PodSecurityContext,
)


class GroupEvent(TypedDict):
    """An event of a container."""

    name: str
    message: str
    type: Literal["Normal", "Warning"]
    count: int


class GroupContainerState(TypedDict, total=False):
    """One state of a container; times are RFC 3339. `message` is an extension of this project to ACI's API."""

    state: str
    detailStatus: str
    startTime: str
    finishTime: str
    exitCode: int
    message: str


class ContainerView(TypedDict, total=False):
    """The instance view of a container. `ready`, `started`, `imageId` and `attempt` are extensions of this project to ACI's API."""

    restartCount: int
    currentState: GroupContainerState
    previousState: GroupContainerState | None
    events: list[GroupEvent]
    ready: bool
    started: bool
    imageId: str
    attempt: int
    resources: GroupRequirements
    resizeError: str
    user: ContainerUser


class GroupPort(TypedDict):
    """A port of a container or group."""

    port: int
    protocol: str


class GroupVariable(TypedDict, total=False):
    """An environment variable; `secureValue` is never returned."""

    name: Required[str]
    value: str
    secureValue: str


class GroupMount(TypedDict, total=False):
    """A volume in a container."""

    name: Required[str]
    mountPath: Required[str]
    readOnly: bool
    subPath: str


class GroupAmount(TypedDict):
    """vCPUs and decimal gigabytes."""

    cpu: float
    memoryInGB: float


class GroupResources(TypedDict, total=False):
    """The requests and limits of a container."""

    requests: Required[GroupAmount]
    limits: GroupAmount


class GroupRequirements(TypedDict, total=False):
    """The exact requests and limits of a container, as quantities: an extension to ACI's API."""

    requests: dict[str, str]
    limits: dict[str, str]


class GroupDns(TypedDict, total=False):
    """The resolver of a group; search domains and options are separated by spaces."""

    nameServers: Required[list[str]]
    searchDomains: str
    options: str


class GroupHttpGet(TypedDict, total=False):
    """An HTTP request."""

    path: str
    port: Required[int]
    scheme: str
    httpHeaders: list[HTTPHeader]
    host: str


class GroupTcpSocket(TypedDict, total=False):
    """A TCP connection."""

    port: Required[int]
    host: str


class GroupHandler(TypedDict, total=False):
    """The action of a hook."""

    exec: dict[str, list[str]]
    httpGet: GroupHttpGet
    sleep: dict[str, int]
    tcpSocket: GroupTcpSocket


class GroupLifecycle(TypedDict, total=False):
    """The hooks of a container, and the signal that ends it: an extension of this project to ACI's API."""

    postStart: GroupHandler
    preStop: GroupHandler
    stopSignal: str


class GroupGrpc(TypedDict):
    """A call of a gRPC health check."""

    port: int
    service: str


class GroupProbe(TypedDict, total=False):
    """A probe; exactly one of `exec`, `httpGet`, `tcpSocket` and `grpc` is set."""

    exec: dict[str, list[str]]
    httpGet: GroupHttpGet
    tcpSocket: GroupTcpSocket
    grpc: GroupGrpc
    terminationGracePeriodSeconds: int
    initialDelaySeconds: int
    periodSeconds: int
    failureThreshold: int
    successThreshold: int
    timeoutSeconds: int


class GroupSecurityContext(TypedDict, total=False):
    """The security context of a container; `seccompProfile` is base64 of JSON."""

    allowPrivilegeEscalation: bool
    capabilities: Capabilities
    readOnlyRootFilesystem: bool
    runAsUser: int
    runAsGroup: int
    runAsNonRoot: bool
    supplementalGroups: list[int]
    seccompProfile: str


class GroupContainerProperties(TypedDict, total=False):
    """The properties of a container."""

    image: Required[str]
    imagePullPolicy: str
    command: list[str]
    args: list[str]
    workingDir: str
    expandFields: bool
    ports: list[GroupPort]
    environmentVariables: list[GroupVariable]
    volumeMounts: list[GroupMount]
    resources: GroupResources
    livenessProbe: GroupProbe
    readinessProbe: GroupProbe
    startupProbe: GroupProbe
    lifecycle: GroupLifecycle
    restartPolicy: str
    restartPolicyRules: list[ContainerRestartRule]
    terminationMessagePath: str
    terminationMessagePolicy: str
    securityContext: GroupSecurityContext
    resourceRequirements: GroupRequirements
    resizePolicy: list[ContainerResizePolicy]
    stdin: bool
    stdinOnce: bool
    tty: bool
    targetContainerName: str
    instanceView: ContainerView


class GroupContainer(TypedDict):
    """A container of a group."""

    name: str
    properties: GroupContainerProperties


class GroupEmptyDir(TypedDict, total=False):
    """An empty folder; `medium` and `sizeLimit` are extensions of this project."""

    medium: str
    sizeLimit: str


class GroupFile(TypedDict):
    """The path and the mode of a file of a volume."""

    key: str
    path: str
    mode: int


class GroupAzureFile(TypedDict, total=False):
    """A share of Azure Files; the key is never returned."""

    shareName: Required[str]
    storageAccountName: Required[str]
    storageAccountKey: Required[str]
    readOnly: bool


class GroupGitRepo(TypedDict, total=False):
    """A clone of a git repository."""

    repository: Required[str]
    revision: str
    directory: str


class GroupAzureDisk(TypedDict, total=False):
    """A managed disk, by its resource id: an extension to ACI's API, with the names of Kubernetes' volume of this kind."""

    diskURI: Required[str]
    readOnly: bool


class GroupVolume(TypedDict, total=False):
    """A volume; `secret` maps paths to base64, `items` selects and gives modes."""

    name: Required[str]
    emptyDir: GroupEmptyDir
    secret: dict[str, str]
    azureFile: GroupAzureFile
    gitRepo: GroupGitRepo
    azureDisk: GroupAzureDisk
    defaultMode: int
    items: list[GroupFile]


class ProcessChanges(TypedDict, total=False):
    """What of a container applies when it starts the next time."""

    command: list[str]
    args: list[str]
    environmentVariables: Required[list[GroupVariable]]


class ResourceChanges(TypedDict):
    """What of a container changes while it runs."""

    resources: GroupResources
    resourceRequirements: GroupRequirements
    resizePolicy: list[ContainerResizePolicy]


class ContainerChanges(TypedDict):
    """The changes of a container with that name."""

    name: str
    properties: ProcessChanges | ResourceChanges


class GroupChanges(TypedDict, total=False):
    """The changes of a group; volumes and containers that are not named stay as they are."""

    volumes: list[GroupVolume]
    containers: list[ContainerChanges]
    initContainers: list[ContainerChanges]


class GroupPatch(TypedDict):
    """The body of a PATCH, an extension of this project."""

    properties: GroupChanges


class GroupCredential(TypedDict, total=False):
    """The credential of a registry: user name and password, or an identity of the group, by its resource id.

    `matchImages`, an extension, has the patterns of the images that it is for.
    """

    server: Required[str]
    username: str
    password: str
    identity: str
    matchImages: list[str]


class GroupAddress(TypedDict, total=False):
    """The address and the ports of a group."""

    type: str
    ports: list[GroupPort]
    ip: str


class GroupView(TypedDict, total=False):
    """The instance view of a group. `reason` and `message` are extensions of this project to ACI's API."""

    state: str
    events: list[GroupEvent]
    reason: str
    message: str


class IdentityAccess(TypedDict):
    """Who may use the group's identities: with `System` the platform, which pulls images, and not the containers."""

    defaultAccess: Literal["All", "None", "System", "User"]


class GroupIdentity(TypedDict):
    """The managed identities of a group, by their resource ids."""

    type: Literal["UserAssigned"]
    userAssignedIdentities: dict[str, dict[str, str]]


class GroupProperties(TypedDict, total=False):
    """The properties of a group."""

    containers: Required[list[GroupContainer]]
    initContainers: list[GroupContainer]
    ephemeralContainers: list[GroupContainer]
    imageRegistryCredentials: list[GroupCredential]
    restartPolicy: str
    osType: str
    volumes: list[GroupVolume]
    ipAddress: GroupAddress
    subnetIds: list[dict[str, str]]
    terminationGracePeriodSeconds: int
    activeDeadlineSeconds: int
    hostname: str
    subdomain: str
    setHostnameAsFQDN: bool
    hostAliases: list[HostAlias]
    dnsConfig: GroupDns
    securityContext: PodSecurityContext
    shareProcessNamespace: bool
    hostUsers: bool
    pod: bool
    virtualMachine: str
    identityAcls: IdentityAccess
    labels: dict[str, str]
    provisioningState: str
    instanceView: GroupView


class ContainerGroup(TypedDict, total=False):
    """A container group."""

    id: str
    name: str
    location: str
    tags: dict[str, str]
    identity: GroupIdentity
    properties: Required[GroupProperties]
