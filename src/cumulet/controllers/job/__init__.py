"""Jobs run pods until enough of them have succeeded (`pkg/controller/job`)."""

from cumulet.controllers.job.controller import JobController
from cumulet.controllers.job.expiry import ExpiryController
from cumulet.controllers.job.orphans import OrphanPodController

__all__ = ["ExpiryController", "JobController", "OrphanPodController"]
