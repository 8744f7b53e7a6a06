"""Official trees as tests hold them, read into ours, and how weights of others are refused."""

import flax.traverse_util
import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.models import weights
from pav_jax.models.formats import names
from pav_jax.models.formats import official


def load(path, config):
  """Our tree from a published checkpoint that is said to be of this shape."""
  return weights.load(official.look(path, config), config)


def from_tree(tree, config):
  """Our tree from an official one of arrays, flat or nested."""
  flat = flax.traverse_util.flatten_dict(tree)
  tensors = {official.name_of(key): names.Tensor(tuple(x.shape), lambda x=x: np.asarray(x)) for key, x in flat.items()}
  return weights.load(official.of_tensors("official", tensors, config), config)


def refused(action, *words):
  """The action raises a UserError of one line that has these words."""
  with pytest.raises(UserError) as caught:
    action()
  message = str(caught.value)
  assert "\n" not in message
  for word in words:
    assert str(word) in message, message
