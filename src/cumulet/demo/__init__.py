"""Demonstrates the whole path with the commands that a user would type, and shows the output of each.

Each step runs `cumulet`, kubectl, docker or buildah, and curl, and checks their output. No room is called directly. The
first failed check stops the demonstration.
"""
