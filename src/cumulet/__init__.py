"""Cumulet: the serverless-pod path of AKS, ACR and ACI, run for real on one machine."""

__version__ = "0.1.0"
