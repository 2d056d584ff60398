"""Runs container groups, as Azure Container Instances does: the resource provider `Microsoft.ContainerInstance`.

The front door sends requests for container groups, over mutual TLS. The room pulls the images with the credentials of
the group and no others, gives each group its own network and user namespace, runs its containers with runc under a
supervisor that outlives this process, and records the usage that is billed. Status, events, logs and streams go back.

The folders are layers; imports go down only: `provider` (the HTTP API), `groups` (life cycle), `streams` (processes and
logs) and `metering`, `runtime` (runc) and `store`, `sandbox` (the kernel's side) and `validation`, then `model`,
`images` and `security`.
"""
