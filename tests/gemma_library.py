"""The gemma library for tests that compare with it: `from tests.gemma_library import gm`.

It changes flax.linen.Module.param for the whole process when it is imported
(findings/gemma_changes_flax.sh), so nothing in pav_jax imports it.
"""

from kauldron import checkpoints

if not hasattr(checkpoints, "AbstractPartialLoader"):
  # gemma 3.3 (the last for Python 3.11) still uses the name that kauldron 1.4 dropped.
  checkpoints.AbstractPartialLoader = checkpoints.InitTransform

from gemma import gm  # noqa: E402, F401, only after the alias
