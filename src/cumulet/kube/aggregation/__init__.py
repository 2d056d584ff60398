"""Aggregated API servers: groups that an APIService registers, and metrics.k8s.io.

A request for a registered group comes in and is proxied to the service that the APIService names, with the user in
headers; the response goes out as it is. Discovery includes what these servers serve. `resource_metrics` stands in for
metrics-server: it answers metrics.k8s.io from the summaries of the kubelets.
"""
