"""XManager's view of a slice: an executor that hands a work unit to whoever submits it.

XManager has executors for Vertex, which maps TPU v2 and v3 only, and for
Kubernetes, which leaves TPU limits out. Its local backend runs any executor it
finds in its registry: it records experiment and work unit, and calls `launch`.
What was submitted lives on without the launcher, so there is no handle to wait
for, and nothing to package: the image or the packages are there already. The
slice is not told as xm.JobRequirements(tpu_v5e="4x4"): in xmanager 0.8.1 that
raises AttributeError for every accelerator (ResourceType.architecture is gone).
"""

from collections.abc import Callable

import attr
from errors import LaunchError
from xmanager import xm
from xmanager import xm_local
from xmanager.xm import job_operators
from xmanager.xm_local import registry


@attr.s(auto_attribs=True)
class Submitted(xm.Executor):
  """Somewhere with slices. submit: sends the job off, says what became of it, raises LaunchError if it is refused."""

  submit: Callable[[], str]
  said: str = ""  # of a job that was accepted
  refused: str = ""  # why; raised through XManager it would be logged as a failure of the launcher's
  Spec = xm_local.KubernetesSpec  # required by the base class; only packaging reads it

  @classmethod
  async def launch(cls, local_experiment_unit, job_group: xm.JobGroup) -> list:
    """Submits all jobs of a group; no handles."""
    del local_experiment_unit
    for job in job_operators.flatten_jobs(job_group):
      try:
        job.executor.said = job.executor.submit()
      except LaunchError as error:
        job.executor.refused = str(error)
    return []


registry.register(Submitted, Submitted.launch)
