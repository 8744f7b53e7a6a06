"""The programs of every stage compile for a mesh, need what is counted by hand, and say so when they do not fit.

The compiler is the CPU's here, which is what any machine has; the TPU's takes the same road.
"""

import jax
import pytest

from configs import default
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models import size
from pav_jax.pods import chips
from pav_jax.pods import compile as compile_lib
from pav_jax.pods import hlo
from pav_jax.pods import programs
from pav_jax.rollouts import jobs
from pav_jax.training import mesh as mesh_lib

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="run by test_on_eight_devices.py in a process of its own")
ROOMY = chips.Chip(2**40, 1e12, 1e12, 1e12)


@pytest.fixture(scope="module")
def mesh():
  return mesh_lib.make_mesh(data=1, fsdp=4, model=2)


def _config(**changes):
  config = default.get_config()
  config.update_from_flattened_dict({"sft.batch_size": 16, "verifier.kinds": ("q",), "verifier.q.batch_size": 16, "rl.baseline": "value",
                                     "rollouts.rows": 16, "search.rows": 96, "monte_carlo.rows": 16, "rl.rows": 16, **changes})
  return config


@pytest.mark.parametrize("stage, names", [
    ("sft", ["sft: update"]),
    ("rollouts", ["rollouts: prefill of 2", "rollouts: token of 16 rows"]),
    ("verifier", ["verifier q: update"]),
    ("search", ["search samples: prefill of 4", "search samples: token of 96 rows", "search: scoring of 96 rows",
                "search: prefill of 4", "search: step of 96 candidates", "search: candidates become items"]),
    ("rl", ["rft: update", "rl: prefill of 1", "rl: token of 16 rows", "rl: reading by all", "rl: policy's update",
            "rl: value function's update"])])
def test_every_program_of_a_stage_compiles(stage, names, mesh):
  config = _config(stage=stage)
  found = [x for name in programs.stages(config) for x in programs.of_stage(name, config, mesh)]
  assert len(found) == len(names)
  for program, name in zip(found, names):
    assert program.name.split(" of ")[0] == name.split(" of ")[0]
    line = compile_lib.compiled(program, mesh.size, ROOMY)
    assert not line["too_large"] and line["need"] > 0 and (line["flops"] > 0 or "become" in name) and line["least_bytes"] > 0, line
    assert line["total"] == line["need"] + sum(line["besides"].values())
    assert name in compile_lib.row(line, ROOMY) or " of " in name


def test_an_arm_with_a_prover_of_its_own_reads_that_one_too(mesh):
  reading = lambda *arms: next(x for x in programs.of_stage("rl", _config(stage="rl", **{"rl.arms": arms}), mesh) if "reading" in x.name)
  own, plain = reading("progress@prover"), reading("progress")
  own.lower()
  assert own.flops > plain.flops and own.flops < 2 * plain.flops


def test_the_pipeline_and_rl_have_all_their_stages():
  assert programs.stages(_config(stage="pipeline")) == ("sft", "rollouts", "values", "verifier", "search")
  assert programs.stages(_config(stage="rl")) == ("rft", "rl")
  assert programs.stages(_config(stage="problems")) == ()


def test_the_state_by_hand(mesh):
  """Weights, two moments: three times four bytes a parameter, cut over all chips, but norms, whole on each."""
  config = architecture.shape(default.get_config().policy)
  norms = (4 * config.num_layers + 1) * config.width
  cut = sum(size.num_params(config)) - norms
  [program] = programs.of_stage("sft", _config(stage="sft"), mesh)
  assert program.counted["state"] == 12 * (cut / mesh.size + norms)


def test_one_head_of_keys_lies_on_every_chip_of_its_group(mesh):
  """Gemma 3 270M, nothing compiled: the counted state is what the layout puts on a chip, but for three counters; a token's keys likewise."""
  config = _config(stage="sft", **{"policy.size": "gemma3_270m", "policy.vocab_size": 262_144, "rollouts.max_new": 1024})
  [program] = programs.of_stage("sft", config, mesh)
  assert 0 <= programs.bytes_on_a_chip(program.arguments) - program.counted["state"] <= 16
  _, token = programs.of_stage("rollouts", config, mesh)
  weights = 4 * 268_098_176 / 2
  keys = 2 * 18 * 256 * 4  # of a token, all layers, not cut over model
  width, share, lanes = config.problems.max_prompt, jobs.rows_of_lane(config.rollouts.n_cov), 16 / jobs.rows_of_lane(config.rollouts.n_cov)
  # In the middle of an answer of 1,024 tokens 15 local layers of 18 see 512 of its own, nothing of the prompt.
  assert token.bytes == weights + lanes / 4 * keys * (3 / 18 * (width + share * 512) + 15 / 18 * share * 512)


@pytest.mark.parametrize("stage, section, numbers, changes", [
    ("sft", "sft", 2 * (28 + 24), {}),
    ("sft", "sft", 2 * (28 + 24), {"sft.microbatches": 4}),
    ("sft", "sft", 2 * (100 + 24), {"policy.size": "mini", "problems.max_prompt": 100}),
    ("verifier", "verifier.q", (28 + 26) + 3 * 13, {"verifier.text_weight": 0.0}),
    ("verifier", "verifier.q", (24 + 40) + 3 * 13, {"verifier.text_weight": 0.0, "verifier.labels": "both", "labels.max_prompt": 24,
                                                    "labels.max_response": 40, "labels.max_steps": 9})])
def test_a_training_step_keeps_what_is_counted(stage, section, numbers, changes, mesh):
  """The arguments to the byte: the state, `numbers` of four bytes a row of the batch, the step and optax's two counts. The rest within 2."""
  config = _config(stage=stage, **{f"{section}.batch_size": 64, **changes})
  [program] = programs.of_stage(stage, config, mesh)
  line = compile_lib.compiled(program, mesh.size, ROOMY)
  assert line["arguments"] == program.counted["state"] + 64 / 4 * numbers * 4 + 3 * 4
  counted = sum(size for name, size in program.counted.items() if name != "state")
  assert 1 / 2 < line["temporaries"] / counted < 2, (line["temporaries"], program.counted)


def test_rows_stay_rows_in_training(mesh):
  """Nothing as large as the activations of all rows is sent in a loop: each part computes its own."""
  config = _config(stage="sft")
  config.sft.batch_size = 64
  [program] = programs.of_stage("sft", config, mesh)
  shape = architecture.shape(config.policy)
  whole = 64 * (28 + 24) * shape.width * 4
  own = whole / mesh.shape["fsdp"]
  inside = [x for x in hlo.collectives(program.lower().compile().as_text()) if x.in_loop]
  assert inside and max(x.size for x in inside) <= max(own, 4 * shape.width * shape.ffn_width * 2), inside


def test_what_is_kept_of_a_layer_is_kept_once(mesh):
  """Layers' inputs have their tokens over model: no chip keeps what another keeps."""
  config = _config(stage="sft")
  config.sft.batch_size = 64
  [program] = programs.of_stage("sft", config, mesh)
  shape, tokens = architecture.shape(config.policy), 28 + 24
  kept = lambda count: f"f32[{shape.num_layers},{64 // mesh.shape['fsdp']},{count},{shape.width}]"
  text = program.lower().compile().as_text()
  assert kept(tokens // mesh.shape["model"]) in text and kept(tokens) not in text


def test_what_does_not_fit_is_named(mesh, monkeypatch, tmp_path, capsys):
  config = _config(stage="rl", **{"rl.arms": ("progress",)})
  config.mesh.update(dict(mesh.shape))
  tiny = chips.Chip(2**20, 1e12, 1e12, 1e12)
  monkeypatch.setattr(chips, "devices", lambda topology: jax.devices())
  monkeypatch.setattr(chips, "chip", lambda topology: tiny)
  monkeypatch.setattr(programs, "stages", lambda config: ("rl",))
  with pytest.raises(UserError, match=r"does not fit: .*rl: policy's update: .*its own, beside it value function and its optimiser"):
    compile_lib.run(config, "v5e:4x4", tmp_path)
  assert "DOES NOT FIT" in capsys.readouterr().out
  assert len((tmp_path / "compile.jsonl").read_text().splitlines()) == 5


def test_the_compilers_refusal_in_one_line(mesh):
  message = """RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.51G of 15.75G hbm.

  Largest program allocations in hbm:

  1. Size: 9.00G
     Operator: op_name="jit(f)/dot_general"
     Shape: f32[32,1536,49152]{2,1,0:T(8,128)}
     ==========================

  2. Size: 4.50G
     Shape: bf16[32,1536,49152]{2,1,0}
"""
  assert compile_lib.refusal(message, ()) == (
      "Ran out of memory in memory space hbm. Used 20.51G of 15.75G hbm. The largest arrays a chip: "
      "f32[32,1536,49152] 9.00G, bf16[32,1536,49152] 4.50G")
  [program] = programs.of_stage("sft", _config(stage="sft"), mesh)
  said = compile_lib.refusal("RESOURCE_EXHAUSTED: the total (16.00G) exceeds available HBM (15.75G).", program.arguments)
  assert said.startswith("the total (16.00G) exceeds available HBM (15.75G). The largest arrays a chip: float32[3, 2, 16, 96] 0.00 GiB")


@pytest.mark.parametrize("topology", ["v3:4x4", "v5e", "v5e:4", "v5e:4x", "4x4", "v5p:4x4x4x4"])
def test_a_slice_that_is_none(topology):
  with pytest.raises(UserError, match="v4, v5e, v5p"):
    chips.chip(topology)
