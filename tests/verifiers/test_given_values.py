"""Values of given steps are those that search and the stages read for the same ids."""

import pathlib
import types

import jax
import numpy as np
import pytest

import fakes
from fakes import A, B, BOS, C, EOS, NL
from pav_jax.models import architecture
from pav_jax.problems import steps
from pav_jax.problems.given import Given
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.search import beam
from pav_jax.search import ranking
from pav_jax.training import mesh as mesh_lib
from pav_jax.verifiers import given
from pav_jax.verifiers import score

ARCH, PARAMS = types.SimpleNamespace(network=fakes.GEMMA), fakes.gemma_params(1)
PROMPTS = [np.array([BOS, A, B, C], np.int32), np.array([BOS, C], np.int32), np.array([BOS, B, C], np.int32)]


def _given(token_t, *ends):
  return Given(np.array(token_t, np.int32), np.array(ends, np.int32))


def test_equal_to_what_search_reads_of_the_same_tokens(monkeypatch):
  """A beam of one with one candidate: what the verifier said of every step it took, and of the prompt."""
  seen = []  # each round's (parent's, candidate's) sigmoid
  def spy(raw_rv, parent_rv, rank, rng):
    seen.append((parent_rv[:, 0].copy(), raw_rv[:, 0].copy()))
    return raw_rv[:, 0]
  monkeypatch.setattr(ranking, "candidate_scores", spy)
  policy = fakes.chain_params({token: {A: 0.3, B: 0.3, NL: 0.3, EOS: 0.1} for token in (A, B, C, NL)})
  steps_read = 0
  for p, prompt_t in enumerate(PROMPTS):
    seen.clear()
    found = beam.search(
        beam.Player(fakes.CHAIN, policy), beam.Judges(beam.Player(fakes.GEMMA, PARAMS)), prompt_t[None], np.array([len(prompt_t)], np.int32),
        np.array([p], np.int32), fakes.TOKENS, way=beam.Way(width=1, candidates=1), max_rounds=30, max_new=24,
        max_step=24, sampling=sampling_lib.Sampling(), seed=2, rows=1)
    token_t = found.token_pt[0, :found.length_p[0]]
    want = [seen[0][0][0], *(raw_r[0] for _, raw_r in seen)]
    values, = given.values(ARCH, PARAMS, [prompt_t], [_given(token_t, *steps.step_ends(token_t, fakes.VOCABULARY.step_rule))],
                           rows=4)
    steps_read += len(values)
    np.testing.assert_allclose(values, want, atol=1e-5)
    assert values[-1] == pytest.approx(found.q_p[0], abs=1e-5) and np.ptp(values) > 0.01
  assert steps_read > 9


@pytest.mark.parametrize("rows", [1, 4, 64])
def test_equal_to_what_the_stages_read_whatever_the_batches(rows):
  """Rows of all lengths and numbers of steps, out of order, one without a step; each as `score_responses` reads it alone."""
  rng = np.random.default_rng(0)
  prompts, rows_given = [], []
  for length in (0, 70, 3, 33, 150, 1, 40, 5, 2):
    prompts.append(PROMPTS[length % 3])
    token_t = rng.integers(A, C + 1, length)
    ends = sorted(rng.choice(length - 1, min(length - 1, 4), replace=False)) + [length - 1] if length > 1 else range(length)
    rows_given.append(_given(token_t, *ends))
  class Bar:
    n = 0
    def update(self, count):
      self.n += count
  bar = Bar()
  found = given.values(ARCH, PARAMS, prompts, rows_given, rows=rows, bar=bar)
  assert bar.n == 9 and [len(x) for x in found] == [len(x.end_s) + 1 for x in rows_given]
  assert all(x.dtype == np.float32 for x in found)
  for prompt_t, one, values in zip(prompts, rows_given, found):
    token_t = one.token_t if len(one.token_t) else np.array([A])
    want = score.score_responses(
        fakes.GEMMA, PARAMS, prompt_t[None], np.array([len(prompt_t)]), np.array([0]), token_t[None].astype(np.int32),
        np.array([len(one.token_t)]), np.concatenate([[-1], one.end_s]).astype(np.int32)[None], rows_per_call=1)[0]
    np.testing.assert_allclose(values, want, atol=1e-5)


def on_devices(path: str, fsdp: int):
  """Writes what the devices of this process say of rows of several lengths, parameters cut over fsdp of them."""
  mesh = mesh_lib.make_mesh(data=-1, fsdp=fsdp, model=1)
  params = jax.device_put(PARAMS, mesh_lib.shardings(PARAMS, mesh, architecture.SHARDING))
  rng = np.random.default_rng(2)
  rows_given = [_given(rng.integers(A, C + 1, n), n // 2, n - 1) for n in (2, 70, 9, 40, 5, 33, 8, 3, 20, 61, 2)]
  prompts = [PROMPTS[i % 3] for i in range(len(rows_given))]
  np.save(path, given.values(ARCH, params, prompts, rows_given, rows=8, mesh=mesh))


def test_eight_devices_say_what_one_says(tmp_path):
  fakes.OnEightDevices(pathlib.Path(__file__), f"on_devices({str(tmp_path / 'eight.npy')!r}, 2)").join()
  on_devices(str(tmp_path / "one.npy"), 1)
  np.testing.assert_allclose(np.load(tmp_path / "eight.npy"), np.load(tmp_path / "one.npy"), atol=1e-5)


def test_few_programs_for_many_lengths():
  given._every_score.clear_cache()
  rng = np.random.default_rng(1)
  lengths = rng.integers(1, 120, 100)
  found = given.values(ARCH, PARAMS, [PROMPTS[0]] * 100, [_given(rng.integers(A, C, n), n - 1) for n in lengths], rows=8)
  assert len(found) == 100 and given._every_score._cache_size() <= 6


def test_nothing_to_read():
  assert given.values(ARCH, PARAMS, [], [], rows=4) == []


def test_widths():
  assert [given._width(n) for n in (1, 32, 33, 48, 49, 64, 65, 96, 97, 2048, 2049, 3072, 3073)] == [
      32, 32, 48, 48, 64, 64, 96, 96, 128, 2048, 3072, 3072, 4096]
