"""Custom resources: kinds that a CustomResourceDefinition adds while the server runs (apiextensions.k8s.io/v1)."""

from cumulet.kube.custom.definition import KEY, check, establish, rows_of
from cumulet.kube.custom.kind import Custom

__all__ = ["KEY", "Custom", "check", "establish", "rows_of"]
