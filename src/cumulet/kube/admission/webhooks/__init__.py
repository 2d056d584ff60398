"""Admission webhooks (admissionregistration.k8s.io/v1).

A write comes in; it is sent as an AdmissionReview to each webhook that selects it, and a patch or a refusal comes
back.
"""

from cumulet.kube.admission.webhooks.plugin import Webhooks
from cumulet.kube.admission.webhooks.review import AdmissionRequest

__all__ = ["AdmissionRequest", "Webhooks"]
