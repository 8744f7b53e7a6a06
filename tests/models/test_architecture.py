"""From a path to parameters: ours, official, and neither."""

import types

import jax
import ml_collections
import numpy as np
import pytest

from configs import default
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models import weights
from pav_jax.training import mesh as mesh_lib

VOCABULARY = types.SimpleNamespace(scoring_id=4, fingerprint="f" * 64, bos_id=2, size=32, check_rows=lambda rows, published: None,
                                   encode=lambda text: [3 + ord(x) % 29 for x in text])


@pytest.fixture(scope="module")
def mesh():
  return mesh_lib.make_mesh(data=-1, fsdp=1, model=1)


def section(**changes) -> ml_collections.ConfigDict:
  return default.model(vocab_size=32, **changes)


def test_an_official_checkpoint_is_what_the_section_says(tmp_path, mesh):
  arch = architecture.build(section(), VOCABULARY)
  params = jax.device_get(arch.network.init(jax.random.key(0)))
  weights.save_official(tmp_path / "gemma", params, arch.config)
  found_arch, found = architecture.restore(str(tmp_path / "gemma"), section(), VOCABULARY, mesh)
  assert found_arch.config == arch.config
  jax.tree.map(np.testing.assert_array_equal, found, params)


def test_an_official_checkpoint_of_another_shape_is_refused(tmp_path, mesh):
  arch = architecture.build(section(), VOCABULARY)
  weights.save_official(tmp_path / "gemma", jax.device_get(arch.network.init(jax.random.key(0))), arch.config)
  with pytest.raises(UserError):
    architecture.restore(str(tmp_path / "gemma"), section(size="mini"), VOCABULARY, mesh)


@pytest.mark.parametrize("changes, said", [({"size": "huge"}, "huge"), ({"dtype": "float16"}, "float16")])
def test_a_section_that_means_nothing(changes, said):
  with pytest.raises(UserError, match=said):
    architecture.build(section(**changes), VOCABULARY)


def test_no_such_path(mesh, tmp_path):
  with pytest.raises(UserError, match="no such folder"):
    architecture.restore(str(tmp_path / "nosuch"), section(), VOCABULARY, mesh)


def test_a_shift_of_the_scores_is_part_of_what_a_checkpoint_says():
  arch = architecture.build(section(), VOCABULARY)
  shifted = arch.shifted(1.5)
  params = arch.network.init(jax.random.key(0))
  hidden_btd = arch.network.hidden(params, np.array([[5, 6, 7]]))
  np.testing.assert_allclose(shifted.network.scores(params, hidden_btd), arch.network.scores(params, hidden_btd) - 1.5,
                             atol=1e-6)
  np.testing.assert_array_equal(shifted.network.logits(params, hidden_btd), arch.network.logits(params, hidden_btd))
  assert shifted.meta("q")["model"]["score_shift"] == 1.5 and arch.meta("q")["model"]["score_shift"] == 0


def test_a_checkpoint_says_whether_it_is_a_policy_or_which_verifier(made):
  assert [architecture.kind_of(str(made / path)) for path in ("sft/best", "verifier/q/best")] == ["policy", "q"]
