"""Sweeps and stages: which runs of pav_jax.main a command line stands for."""

from errors import LaunchError
import pytest
import units


def _make(title="pav_jax", arguments=("--config=c.py",), workdir="gs://b/run", sweep=(), stages=()):
  return units.make(title, list(arguments), workdir, list(sweep), list(stages))


def test_one_run():
  assert _make(workdir="runs/a b/") == [
      units.Unit("pav-jax", "", "runs/a b/", (("--config=c.py", "--workdir=runs/a b/"),))]


def test_a_cross_product_with_a_workdir_each():
  made = _make(sweep=["config.seed=0,1", "config.search.widths=1,2;4"], stages=["sft", "rollouts"])
  assert [(unit.name, unit.point, unit.workdir) for unit in made] == [
      ("pav-jax-1", "seed=0,search.widths=1,2", "gs://b/run/seed=0,search.widths=1,2"),
      ("pav-jax-2", "seed=0,search.widths=4", "gs://b/run/seed=0,search.widths=4"),
      ("pav-jax-3", "seed=1,search.widths=1,2", "gs://b/run/seed=1,search.widths=1,2"),
      ("pav-jax-4", "seed=1,search.widths=4", "gs://b/run/seed=1,search.widths=4")]
  assert made[2].stages == tuple(
      ("--config=c.py", "--config.seed=1", "--config.search.widths=1,2", "--workdir=gs://b/run/seed=1,search.widths=1,2",
       f"--config.stage={stage}") for stage in ("sft", "rollouts"))


def test_a_workdir_is_a_plain_name_and_the_value_as_it_was_given():
  [unit, _] = _make(sweep=["config.a=x/y $(z),0"])
  assert unit.workdir == "gs://b/run/a=x_y___z_" and "--config.a=x/y $(z)" in unit.stages[0]


@pytest.mark.parametrize("given, line", [
    (dict(arguments=()), "command line: --config=configs/....py is missing"),
    (dict(workdir=""), "command line: --workdir=... is missing"),
    (dict(arguments=("--config=c", "--hosts=auto")), "command line: --hosts=auto is the launcher's to say"),
    (dict(arguments=("--config=c", "--dryrun")), "command line: --dryrun is neither the launcher's nor a --config...."),
    (dict(arguments=("--config=c", "--config.stage=sft"), stages=["values"]), "--stages=values and --config.stage=sft"),
    (dict(sweep=["config.stage=sft,rl"], stages=["values"]), "--sweep: config.stage is what --stages=values says"),
    (dict(stages=["sft", ""]), "--stages=sft,: a stage without a name"),
    (dict(sweep=["seed=0,1"]), "--sweep=seed=0,1: not config.KEY=VALUE"),
    (dict(sweep=["config.seed"]), "--sweep=config.seed: not config.KEY=VALUE"),
    (dict(sweep=["config.seed=0,,1"]), "--sweep=config.seed=0,,1: not config.KEY=VALUE"),
    (dict(sweep=["config.seed=0", "config.seed=1"]), "config.seed is swept twice"),
    (dict(sweep=["config.a=x/y,x y"]), "two work units would share a workdir, gs://b/run/a=x_y"),
    (dict(title="Größe"), "--title=Größe: names on a cluster"),
    (dict(title="x" * 41), "end after 40")])
def test_what_cannot_be_run(given, line):
  with pytest.raises(LaunchError) as error:
    _make(**given)
  assert line in str(error.value)
