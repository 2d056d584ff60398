"""What an object says when it says nothing: upstream's defaulting (`zz_generated.defaults.go` of each API group)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

Object = dict[str, Any]


def set_defaults(obj: Object, group: str, version: str, kind: str) -> None:
    """Fill in the defaults of a kind, in place."""
    defaulter = _DEFAULTS.get((group, kind))
    if defaulter is not None:
        defaulter(obj)


def _defaults(target: Object, **values: Any) -> None:
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = value


def _addresses(status: Object) -> None:
    """The one address and the list of them say the same; where they differ the one counts, as of older kubelets."""
    one, many = status.get("podIP"), status.get("podIPs") or []
    if one and (not many or many[0].get("ip") != one):
        status["podIPs"] = [{"ip": one}]
    elif many and not one:
        status["podIP"] = many[0].get("ip", "")


def _pod(obj: Object) -> None:
    if status := obj.get("status"):
        _addresses(status)
    spec = obj.setdefault("spec", {})
    _pod_spec(spec)
    _defaults(spec, enableServiceLinks=True)
    if spec.get("hostNetwork"):
        for container in spec.get("containers") or ():
            for port in container.get("ports") or ():
                _defaults(port, hostPort=port.get("containerPort"))
    # A limit without a request is also the request.
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        resources = container["resources"]
        if limits := resources.get("limits"):
            requests = resources.setdefault("requests", {})
            for name, value in limits.items():
                requests.setdefault(name, value)


def _pod_template(template: Object) -> None:
    _defaults(template, metadata={})
    _pod_spec(template.setdefault("spec", {}))


def _pod_spec(spec: Object) -> None:
    _defaults(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
    )
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        _defaults(spec, serviceAccountName=account, serviceAccount=account)
    for name in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(name) or ():
            _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)
    for toleration in spec.get("topologySpreadConstraints") or ():
        _defaults(toleration, maxSkew=1)


def _container(container: Object) -> None:
    image = container.get("image") or ""
    _defaults(
        container,
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy="Always" if _is_latest(image) else "IfNotPresent",
    )
    for port in container.get("ports") or ():
        _defaults(port, protocol="TCP")
    for variable in container.get("env") or ():
        if reference := (variable.get("valueFrom") or {}).get("fieldRef"):
            _defaults(reference, apiVersion="v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(name):
            _probe(probe)
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict) and (http := hook.get("httpGet")):
            _defaults(http, path="/", scheme="HTTP")


def _probe(probe: Object) -> None:
    _defaults(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if http := probe.get("httpGet"):
        _defaults(http, path="/", scheme="HTTP")
    if (grpc := probe.get("grpc")) is not None:
        _defaults(grpc, service="")


def _is_latest(image: str) -> bool:
    """No tag and no digest means `latest` (distribution's reference grammar)."""
    if "@" in image:
        return False
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag in ("", "latest")


def _volume(volume: Object) -> None:
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
    for name in ("secret", "configMap", "projected", "downwardAPI"):
        if (source := volume.get(name)) is not None:
            _defaults(source, defaultMode=420)
    if (path := volume.get("hostPath")) is not None:
        _defaults(path, type="")
    for source in (volume.get("projected") or {}).get("sources") or ():
        if (token := source.get("serviceAccountToken")) is not None:
            _defaults(token, expirationSeconds=3600)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            if reference := item.get("fieldRef"):
                _defaults(reference, apiVersion="v1")
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        if reference := item.get("fieldRef"):
            _defaults(reference, apiVersion="v1")


def _deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _defaults(spec, replicas=1, strategy={}, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec["strategy"]
    _defaults(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _defaults(strategy, rollingUpdate={})
        _defaults(strategy["rollingUpdate"], maxUnavailable="25%", maxSurge="25%")
    _pod_template(spec.setdefault("template", {}))


def _replica_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _defaults(spec, replicas=1)
    if "template" in spec:
        _pod_template(spec["template"])


def _replication_controller(obj: Object) -> None:
    _replica_set(obj)
    labels = ((obj["spec"].get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        _defaults(obj["spec"], selector=dict(labels))


def _stateful_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _defaults(spec, replicas=1, podManagementPolicy="OrderedReady", updateStrategy={}, revisionHistoryLimit=10)
    _defaults(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _defaults(spec["updateStrategy"], rollingUpdate={})
        _defaults(spec["updateStrategy"]["rollingUpdate"], partition=0)
    _defaults(spec, persistentVolumeClaimRetentionPolicy={})
    _defaults(spec["persistentVolumeClaimRetentionPolicy"], whenDeleted="Retain", whenScaled="Retain")
    _pod_template(spec.setdefault("template", {}))
    for claim in spec.get("volumeClaimTemplates") or ():
        _claim(claim)


def _daemon_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    annotations = obj["metadata"].setdefault("annotations", {})
    annotations.setdefault("deprecated.daemonset.template.generation", "1")
    _defaults(spec, updateStrategy={}, revisionHistoryLimit=10)
    _defaults(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _defaults(spec["updateStrategy"], rollingUpdate={})
        _defaults(spec["updateStrategy"]["rollingUpdate"], maxUnavailable=1, maxSurge=0)
    _pod_template(spec.setdefault("template", {}))


def _job(obj: Object) -> None:
    _job_spec(obj.setdefault("spec", {}))


def _job_spec(spec: Object) -> None:
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    _defaults(
        spec,
        parallelism=1,
        backoffLimit=6 if spec.get("backoffLimitPerIndex") is None else 2**31 - 1,
        manualSelector=False,
        completionMode="NonIndexed",
        suspend=False,
        podReplacementPolicy="Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed",
    )
    _pod_template(spec.setdefault("template", {}))


def _cron_job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _defaults(spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
    template = spec.setdefault("jobTemplate", {})
    _defaults(template, metadata={})
    job = template.setdefault("spec", {})
    if job.get("template") is not None:
        _pod_template(job["template"])


def _service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _defaults(spec, sessionAffinity="None", type="ClusterIP", internalTrafficPolicy="Cluster")
    if spec["type"] == "ExternalName":
        spec.pop("internalTrafficPolicy", None)
    if spec["sessionAffinity"] == "ClientIP":
        _defaults(spec, sessionAffinityConfig={})
        _defaults(spec["sessionAffinityConfig"], clientIP={})
        _defaults(spec["sessionAffinityConfig"]["clientIP"], timeoutSeconds=10800)
    for port in spec.get("ports") or ():
        _defaults(port, protocol="TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        _defaults(spec, externalTrafficPolicy="Cluster")
    if spec["type"] == "LoadBalancer":
        _defaults(spec, allocateLoadBalancerNodePorts=True)
    _defaults(obj, status={})
    _defaults(obj["status"], loadBalancer={})


def _secret(obj: Object) -> None:
    _defaults(obj, type="Opaque")
    if text := obj.pop("stringData", None):
        data = obj.setdefault("data", {})
        for key, value in text.items():
            data[key] = base64.b64encode(value.encode()).decode()


def _namespace(obj: Object) -> None:
    labels = obj["metadata"].setdefault("labels", {})
    if name := obj["metadata"].get("name"):
        labels["kubernetes.io/metadata.name"] = name
    obj.setdefault("spec", {})
    _defaults(obj.setdefault("status", {}), phase="Active")


#: What upstream writes of a node also when nobody has said it.
_NODE_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)


def _node(obj: Object) -> None:
    status = obj.setdefault("status", {})
    for condition in status.get("conditions") or ():
        _defaults(condition, lastHeartbeatTime=None, lastTransitionTime=None)
    _defaults(status, daemonEndpoints={}, nodeInfo={})
    _defaults(status["daemonEndpoints"], kubeletEndpoint={})
    _defaults(status["daemonEndpoints"]["kubeletEndpoint"], Port=0)
    _defaults(status["nodeInfo"], **dict.fromkeys(_NODE_INFO, ""))


def _claim(obj: Object) -> None:
    _defaults(obj.setdefault("spec", {}), volumeMode="Filesystem")
    _defaults(obj, status={})
    _defaults(obj["status"], phase="Pending")


def _volume_object(obj: Object) -> None:
    _defaults(obj.setdefault("spec", {}), persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")
    _defaults(obj, status={})
    _defaults(obj["status"], phase="Pending")


def _autoscaler(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _defaults(spec, minReplicas=1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def _slice(obj: Object) -> None:
    for port in obj.get("ports") or ():
        _defaults(port, name="", protocol="TCP")


def _endpoints(obj: Object) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            _defaults(port, protocol="TCP")


def _storage_class(obj: Object) -> None:
    _defaults(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _network_policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress"] + (["Egress"] if spec.get("egress") else [])
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            _defaults(port, protocol="TCP")


def _binding(obj: Object) -> None:
    reference = obj.setdefault("roleRef", {})
    _defaults(reference, apiGroup="rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            _defaults(subject, apiGroup="rbac.authorization.k8s.io")


def _priority_class(obj: Object) -> None:
    _defaults(obj, preemptionPolicy="PreemptLowerPriority")


def _webhooks(obj: Object) -> None:
    for webhook in obj.get("webhooks") or ():
        _defaults(
            webhook,
            failurePolicy="Fail",
            matchPolicy="Equivalent",
            namespaceSelector={},
            objectSelector={},
            timeoutSeconds=10,
        )
        for rule in webhook.get("rules") or ():
            _defaults(rule, scope="*")
        if (service := (webhook.get("clientConfig") or {}).get("service")) is not None:
            _defaults(service, port=443)


def _mutating_webhooks(obj: Object) -> None:
    _webhooks(obj)
    for webhook in obj.get("webhooks") or ():
        _defaults(webhook, reinvocationPolicy="Never")


def _policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _defaults(spec, failurePolicy="Fail")
    if (match := spec.get("matchConstraints")) is not None:
        _match(match)


def _policy_binding(obj: Object) -> None:
    if (match := (obj.get("spec") or {}).get("matchResources")) is not None:
        _match(match)


def _match(match: Object) -> None:
    _defaults(match, matchPolicy="Equivalent", namespaceSelector={}, objectSelector={})
    for key in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(key) or ():
            _defaults(rule, scope="*")


_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
_DEFAULTS: dict[tuple[str, str], Callable[[Object], None]] = {
    ("", "Pod"): _pod,
    ("", "PodTemplate"): lambda obj: _pod_template(obj.setdefault("template", {})),
    ("", "Service"): _service,
    ("", "Secret"): _secret,
    ("", "Namespace"): _namespace,
    ("", "Node"): _node,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "PersistentVolume"): _volume_object,
    ("", "ReplicationController"): _replication_controller,
    ("", "Endpoints"): _endpoints,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("discovery.k8s.io", "EndpointSlice"): _slice,
    ("storage.k8s.io", "StorageClass"): _storage_class,
    ("networking.k8s.io", "NetworkPolicy"): _network_policy,
    ("scheduling.k8s.io", "PriorityClass"): _priority_class,
    (_ADMISSION, "MutatingWebhookConfiguration"): _mutating_webhooks,
    (_ADMISSION, "ValidatingWebhookConfiguration"): _webhooks,
    (_ADMISSION, "MutatingAdmissionPolicy"): _policy,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): _policy_binding,
    (_ADMISSION, "ValidatingAdmissionPolicy"): _policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): _policy_binding,
    (_RBAC, "RoleBinding"): _binding,
    (_RBAC, "ClusterRoleBinding"): _binding,
}
