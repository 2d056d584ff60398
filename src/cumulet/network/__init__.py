"""The network of pods: Services and network policies in nftables, and the cluster's name server.

In come Services, EndpointSlices, Pods, Namespaces and NetworkPolicies of a Kubernetes API, and DNS queries of pods. Out go
tables in the installation's network namespaces, answers, and events. It stands in for kube-proxy, CoreDNS and the engine
of network policies, for the pods of this machine only.

Layers: `room` starts the parts; `services`, `policy` and `dns` do not know each other; `cluster` is what they watch.
"""
