"""What stands in for a tokenizer in the benchmark keeps up with the locked versions of gemma."""

import inspect
import operator
import re

from tests.benchmarks import peers


def test_the_stand_in_has_what_gemma_s_sampler_asks_for():
  from tests.gemma_library import gm
  source = inspect.getsource(inspect.getmodule(gm.text.Sampler))
  asked = set(re.findall(r"self\.tokenizer\.([\w.]+)", source))
  assert {"encode", "decode", "special_tokens.EOS"} <= asked
  for name in asked:
    operator.attrgetter(name)(peers.Ids())
