"""Starts, supervises and stops the rooms on one machine, and prepares the installation.

It serves the command line. Input: options, and the data directory. Output: running rooms, and their certificates,
ports, kubeconfigs and first principals. It restarts rooms that die. Stopping removes everything that they created.
"""
