"""The virtual kubelet: a node without a machine, whose pods are container groups.

To Kubernetes it is a kubelet, through a kubeconfig and nothing else; to Azure Resource Manager it is a client with a
service principal. Either can be the real one.
"""
