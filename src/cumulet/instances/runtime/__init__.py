"""Runs containers with runc, each under conmon, which outlives this process.

In come a container of a group, the configuration of its image, and a mounted root. Out go the OCI runtime configuration,
the container's process, and its exit code.
"""
