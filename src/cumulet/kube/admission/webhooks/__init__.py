"""Admission webhooks: others are asked about each write that they have asked to see (admissionregistration.k8s.io/v1)."""

from cumulet.kube.admission.webhooks.asking import Question
from cumulet.kube.admission.webhooks.plugin import Webhooks

__all__ = ["Question", "Webhooks"]
