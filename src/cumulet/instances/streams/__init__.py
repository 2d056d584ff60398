"""The streams of a running container: further processes with their input and output, and the log.

In come a container's id or the path of its log. Out go bytes as they are written, and exit codes.
"""
