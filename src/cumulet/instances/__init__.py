"""Runs container groups, as Azure Container Instances does: the resource provider `Microsoft.ContainerInstance`.

In come requests for container groups from the front door, over mutual TLS. The room pulls the images with the
credentials of the group and no others. Each group gets its own network and user namespace. runc runs its containers
under a supervisor that outlives this process. Out go status, events, logs, streams, and the usage that is billed.

The folders are layers, and imports go down only: `provider` (the HTTP API); `groups` (life cycle); `streams` and
`metering`; `runtime` (runc) and `store`; `sandbox` (the kernel) and `validation`; `model`; `images` and `security`.
"""
