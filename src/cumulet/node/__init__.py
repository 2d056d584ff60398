"""The virtual kubelet: a node without a machine, whose pods are container groups.

In come pods from a Kubernetes API, through a kubeconfig only. Out go container groups through Azure Resource Manager,
with a service principal, and the status, events, logs and streams of pods. Both ends can be the real ones.
"""
