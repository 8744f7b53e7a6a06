"""Every stage's check: all that can be known is said before the first stage begins, in one line that names the key."""

import gzip
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from configs import default
from configs.didactic import map as didactic_map
from pav_jax import configuration
from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.problems import mixture
from pav_jax.training import files
from pav_jax.training import records
from pav_jax.verifiers import targets
from tests.test_main import ROOT

STAGES = ("pipeline", "rl", "evaluate")
# What any number, or any word, may be; and the factors of arms that are not asked for.
FREE = {"arithmetic.train_seed", "arithmetic.validation_seed", "arithmetic.test_seed", "problems.data_dir",
        "problems.columns.answer", "problems.columns.solution", "problems.columns.id", "problems.columns.dataset", "problems.leave_out", "report.demonstrators",
        "rl.parity_tolerance", "rl.watch.share"} | {
            f"rl.{name}.{arm}" for name in ("lr_factor", "kl_factor") for arm in default.ARMS if arm not in ("outcome", "progress")}
# Several keys, named together.
NAMED = {"arithmetic.dials.min_length": "lengths", "arithmetic.dials.max_length": "lengths"}


def told(root, stages=STAGES, **changes):
  """What the checks say of a changed default config, of each stage that refuses it."""
  found = []
  for stage in stages:
    config = default.get_config()
    config.update_from_flattened_dict({"stage": stage, "evaluate.checkpoint": str(root / "later"), "verifier.pretrain.num_steps": 51,
                                       "verifier.kinds": targets.KINDS, "monte_carlo.n_mc": 4, **changes})
    try:
      main._check_stages(main._modules(config), config, files.path(root))
    except UserError as error:
      assert "\n" not in str(error)
      found.append(str(error))
  return found


def test_the_defaults_are_well(tmp_path):
  assert not told(tmp_path)


def test_every_knob_is_checked(tmp_path):
  wrong = {int: [-7], float: [-7.0, math.nan], str: ["nosuch"], tuple: [()], bool: []}
  free = set()
  for key, value in configuration.leaves(default.get_config()):
    if key == "stage":  # which main.parse looks at
      continue
    for bad in wrong[type(value)]:
      said = told(tmp_path, **{key: bad})
      free |= {key} - {key for _ in said}
      assert all(NAMED.get(key, key.rpartition(".")[2]) in line for line in said), (key, bad, said)
  assert free == FREE


@pytest.mark.parametrize("changes, said", [
    ({"search.arms": ("foo",)}, "config.search.arms 'foo': no arm 'foo'; there are q_beam, q_subtrees"),
    ({"search.arms": ("q_beam", "q_beam")}, "config.search.arms ('q_beam', 'q_beam'): at least one, and each comes once"),
    ({"search.arms": ("q_beam@prover",)}, "config.search.arms 'q_beam@prover': q_beam has no prover; leave @prover out"),
    ({"search.arms": ("prover_q_beam",)}, "config.search.arms 'prover_q_beam': whose Q? prover_q_beam@NAME, one of prover, exact"),
    ({"search.arms": ("pav_beam@",)}, "config.search.arms 'pav_beam@': whose Q?"),
    ({"search.arms": ("pav_beam@weak",)}, "no prover 'weak' among config.search.provers: prover, exact, advantage"),
    ({"search.arms": ("prover_q_beam@best_of_2",)}, "best-of-K's Q ranks as Q^pi does, whose arm it is: q_beam"),
    ({"search.arms": ("pav_beam@best_of_0",)}, "no prover 'best_of_0' among config.search.provers: prover, exact, advantage, best_of_K"),
    ({"search.provers": {"best_of_2": "x"}}, "config.search.provers.best_of_2: the name is taken"),
    ({"search.arms": ("pav_beam@prover",)}, "config.search.provers.prover is empty: the path of a verifier of its Q"),
    ({"search.arms": ("pav_beam@advantage",), "verifier.kinds": ("orm", "q")}, "reads the verifier 'advantage'"),
    ({"search.arms": ("prover_q_beam@advantage",)}, "a verifier of A says no Q"),
    ({"search.arms": ("pav_beam@exact",), "problems.test": "gsm8k"}, "exact values are known of arithmetic problems alone, not of gsm8k"),
    ({"search.settings.alpha": (1.0,)}, "config.search.settings.alpha (1.0,): each knob has as many settings"),
    ({"search.settings.particle_temperature": (1.0, 0.0, 1.0, 1.0)}, "config.search.settings.particle_temperature"),
    ({"verifier.kinds": ("q",)}, "config.search reads the verifier 'orm'"),
    ({"verifier.kinds": ("orm", "q", "prm")}, "config.verifier.kinds"),
    ({"verifier.kinds": ("advantage", "orm", "q")}, "'q' must stand before 'advantage'"),
    ({"rollouts.top_p": 7.0}, "config.rollouts.top_p 7.0 is not in (0, 1]"),
    ({"search.rows": 23}, "config.search.rows 23 do not hold a beam of 8 with 3 candidates"),
    ({"search.max_step": 27}, "config.search.max_step 27 is more than a whole response has"),
    ({"monte_carlo.seeds_per_problem": 3}, "is more than config.rollouts.n_cov 2"),
    ({"sft.warmup_steps": 500}, "config.sft.warmup_steps 500 is not less than num_steps 500"),
    ({"sft.microbatches": 5}, "config.sft.batch_size 32 does not divide into 5 micro-batches"),
    ({"verifier.q.batch_size": 30, "verifier.q.microbatches": 4}, "config.verifier.q.batch_size 30"),
    ({"sft.b2": 1.0}, "config.sft.b2 1.0 is not in [0, 1)"),
    ({"mesh.fsdp": 3}, "config.mesh: data=0 x fsdp=3 x model=1 is not the"),
    ({"policy.size": "huge"}, "config.policy: model size 'huge' is none of"),
    ({"policy.vocab_size": 300}, "config.policy.vocab_size 300 is less than config.vocabulary.size 376"),
    ({"verifier.model.vocab_size": 300}, "config.verifier.model.vocab_size 300 is less"),
    ({"policy.init_from": "setup.py"}, "config.policy.init_from: checkpoint"),
    ({"vocabulary.path": "setup.py"}, "config.vocabulary.path: vocabulary setup.py: not a SentencePiece model"),
    ({"problems.train": "data/{split}.jsonl"}, "config.problems.train: there is no file data/train.jsonl"),
    ({"problems.train": "data/own.jsonl"}, "config.problems.train: there is no file data/own.jsonl"),
    ({"problems.train": "setup.py"}, "config.problems.train: task 'setup.py' is none of arithmetic, gsm8k"),
    ({"problems.train": "configs/"}, "configs: no data in this folder"),
    ({"problems.columns.question": ()}, "config.problems.columns: there must be a name for question"),
    ({"problems.columns.answer": (), "problems.columns.solution": ()}, "and for answer or solution"),
    ({"problems.leave_out": ("leaks",)}, "config.problems.leave_out 'leaks' is none of contradiction, duplicate, leak"),
    ({"problems.validation": "arithmetic:0"}, "config.problems.validation: mixture"),
    ({"problems.manual_dir": "nosuch"}, "config.problems.manual_dir: there is no folder nosuch"),
    ({"arithmetic.test_seed": 1}, "config.arithmetic: train_seed"),
    ({"arithmetic.dials.noise": 2.0}, "arithmetic.noise: 2.0 is not a probability"),
    ({"verifier.labels": "both"}, "config.labels.files names no file: give --config.labels.files=FILE.jsonl"),
    ({"verifier.labels": "both", "labels.files": "nosuch.jsonl"}, "config.labels.files: there is no file"),
    ({"verifier.own_outcomes": True, "rollouts.checkpoint": "ROOT/other"}, "verifier.own_outcomes: a seed's ending"),
    ({"search.num_problems": 201}, "config.search.num_problems 201: there are 200 test problems; ask for fewer, or for -1"),
    ({"rollouts.num_problems": 0}, "config.rollouts.num_problems 0 is neither -1"),
    ({"problems.limit": 10, "rollouts.num_problems": 11}, "config.rollouts.num_problems 11: there are 10 train problems"),
])
def test_what_the_pipeline_refuses(tmp_path, changes, said):
  changes = {key: value.replace("ROOT", str(tmp_path)) if isinstance(value, str) else value for key, value in changes.items()}
  [line] = told(tmp_path, ("pipeline",), **changes)
  assert said in line


@pytest.mark.parametrize("changes, said", [
    ({"rl.eval_problems": 501}, "config.rl.eval_problems 501: there are 500 validation problems"),
    ({"rl.verifier": "nosuch"}, "config.rl.verifier: checkpoint"),
    ({"verifier.kinds": ("orm",)}, "is the run's own verifier of kind 'q', which config.verifier.kinds ('orm',) does not name"),
    ({"rft.valid_fraction": 1.0}, "config.rft.valid_fraction 1.0"),
    ({"rl.seeds": (0, -1)}, "config.rl.seeds (0, -1)"),
    ({"rl.arms": ("oracle",), "problems.train": "gsm8k"}, "arm oracle"),
])
def test_what_rl_refuses(tmp_path, changes, said):
  [line] = told(tmp_path, ("rl",), **changes)
  assert said in line


def test_what_the_run_makes_itself_need_not_be_there(tmp_path):
  mine = {"search.provers.prover": str(tmp_path / "verifier/q/best"), "search.arms": ("pav_beam@prover",)}
  assert not told(tmp_path, ("pipeline",), **mine)
  [line] = told(tmp_path / "other", ("pipeline",), **mine)
  assert line == f"config.search.provers.prover: checkpoint {tmp_path}/verifier/q/best: no such folder"


def _own(tmp_path, **sizes):
  for split in mixture.SPLITS:
    rows = [json.dumps({"question": f"{n} + 1?", "answer": f"{n + 1}", "solution": f"#### {n + 1}"}) for n in range(sizes.get(split, 5))]
    (tmp_path / f"{split}.jsonl").write_text("\n".join(rows) + "\n\n")
    (tmp_path / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
  return {f"problems.{split}": str(tmp_path / "{split}.jsonl") for split in mixture.SPLITS}


def test_own_problems_need_no_number(tmp_path):
  own = _own(tmp_path)
  assert not told(tmp_path, **own)
  [line] = told(tmp_path, ("pipeline",), **own, **{"search.num_problems": 6})
  assert line == "config.search.num_problems 6: there are 5 test problems; ask for fewer, or for -1, which is all"
  both = f"{tmp_path}/{{split}}.jsonl,{tmp_path}/{{split}}.jsonl.gz:2"
  assert mixture.most(both, "train", 0) == 10 and mixture.most("arithmetic," + both, "train", 7) == 17
  assert mixture.most("gsm8k," + both, "train", 7) == math.inf
  (tmp_path / "test.jsonl.gz").write_bytes(b"no archive")
  with pytest.raises(UserError, match="test.jsonl.gz is damaged"):
    mixture.most(both, "test", 0)


def test_once_they_are_prepared_they_have_been_counted(tmp_path):
  """Those too long are left out; the check knows it then."""
  folder = records.Folder(tmp_path / "problems/test")
  folder.start("problems/test", {}, {})
  folder.write_shard(0, {"id_p": np.zeros(4)}, {"problems": 4})
  folder.finish(1)
  assert told(tmp_path, ("pipeline",), **{"search.num_problems": 5}) == [
      "config.search.num_problems 5: there are 4 test problems; ask for fewer, or for -1, which is all"]
  assert not told(tmp_path, ("pipeline",), **{"search.num_problems": 4})


def test_all_stages_are_checked_before_the_first_begins(tmp_path):
  config = default.get_config()
  config.search.alpha = -1.0
  with pytest.raises(UserError, match="config.search.alpha"):
    main.run(config, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_after_the_problems_the_rest_is_checked_again(tmp_path, monkeypatch):
  config = default.get_config()
  config.update_from_flattened_dict({"arithmetic.train_size": 40, "problems.max_too_long": 1.0, "problems.max_prompt": 20,
                                     "rollouts.num_problems": 40, "vocabulary.size": 300})
  from pav_jax.policy import sft
  monkeypatch.setattr(sft, "run_stage", lambda run: pytest.fail("sft has begun"))
  with pytest.raises(UserError, match=r"config.rollouts.num_problems 40: there are \d+ train problems"):
    main.run(config, tmp_path)


def test_a_figure_is_checked(tmp_path):
  config = didactic_map.get_config()
  config.draws = -1
  with pytest.raises(UserError, match="config.draws: -1 is not positive"):
    main._check_stages(main._modules(config), config, None)


def test_check_says_a_line_and_does_nothing(tmp_path):
  code = ("import sys; from pav_jax import main; status = main.main(); "
          "assert not {'tensorflow', 'seqio', 'tensorflow_datasets', 'gemma'} & set(sys.modules); sys.exit(status)")
  command = [sys.executable, "-c", code, "--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}", "--check"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert (done.returncode, done.stdout) == (0, "all is well: nothing keeps stage pipeline from starting\n"), done.stderr
  assert not (tmp_path / "run").exists()
  done = subprocess.run([*command[:-2], "--check", "--config.search.arms=foo"], cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert done.returncode == 2 and done.stderr.startswith("error: config.search.arms 'foo'"), done.stderr
