"""Starts, supervises and stops the rooms on one machine, and makes what they need before they start.

It serves the person at the terminal: certificates, ports, kubeconfigs and the first principals are made here, once;
rooms are started together, started again when they die, and stopped without leaving anything behind.
"""
