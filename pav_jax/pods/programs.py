"""The jitted programs of a stage, to be compiled for a mesh that need not be there.

Every one is the function the stage itself calls, lowered for the shapes that
the config leads to, rows as long as it allows. What a program needs is
counted by hand: FLOPs of the whole slice, and the bytes one chip has to read
and write at least, if nothing is read twice:

  a training step   the state once in and once out; the weights in the type of
                    the computation three times (forward, again for the backward
                    pass, backward); each layer's input written and read; FLOPs
                    four times a forward pass
  a reading         the weights once
  a decoding step   the weights once, each lane's source and half of each suffix, of both no more than the window in local layers
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from pav_jax.models import architecture
from pav_jax.models import gemma
from pav_jax.models import network as network_lib
from pav_jax.models import size
from pav_jax.pods import counts
from pav_jax.policy import arms
from pav_jax.policy import losses
from pav_jax.policy import reading
from pav_jax.problems import text
from pav_jax.rollouts import collect
from pav_jax.rollouts import engine
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.search import lanes as lanes_lib
from pav_jax.training import fit
from pav_jax.training import mesh as mesh_lib
from pav_jax.verifiers import implicit
from pav_jax.verifiers import score
from pav_jax.verifiers import targets
from pav_jax.verifiers import taught
from pav_jax.verifiers import train as verifiers

_SCORING_ID = 4  # which row of the embedding is read changes no program


class Program(NamedTuple):
  """One program: what lowers it, its large arguments (abstract), what lies on the chips beside them (by name), what it needs.

  counted: bytes a chip by hand (counts.py), of a training step.
  """

  name: str
  lower: Callable[[], Any]
  arguments: Any
  resident: Mapping[str, Any]
  flops: float
  bytes: float
  counted: Mapping[str, float] = {}


class Net(NamedTuple):
  """A network of the config on the mesh: its shape, functions, parameters as they are stored, tokens whose logits are made at a time."""

  config: gemma.GemmaConfig
  network: network_lib.Network
  params: Any
  logit_chunk: int


def stages(config) -> tuple[str, ...]:
  """The stages of a config's `stage` that have programs."""
  alone = {"pipeline": ("sft", "rollouts", "values", "verifier", "search"), "rl": ("rft", "rl"), "evaluate": ("search",)}
  found = alone.get(config.stage, (config.stage,))
  return tuple(stage for stage in found if stage in _STAGES)


def of_stage(stage: str, config, mesh) -> list[Program]:
  """The programs of one of `stages`."""
  return _STAGES[stage](config, mesh)


def _net(section, mesh) -> Net:
  config = architecture.shape(section)
  network = network_lib.from_gemma(config, scoring_id=_SCORING_ID, logit_chunk=section.logit_chunk)
  params = mesh_lib.abstract(jax.eval_shape(network.init, jax.random.key(0)), mesh, architecture.SHARDING)
  return Net(config, network, params, section.logit_chunk)


def _rows(mesh, *shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, mesh_lib.ROWS))


def _whole(mesh, *shape, dtype=jnp.int32):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))


def bytes_on_a_chip(tree) -> int:
  """Of an abstract tree with shardings."""
  one = lambda x: int(np.prod(x.sharding.shard_shape(x.shape), dtype=np.int64)) * jnp.dtype(x.dtype).itemsize
  return sum(one(x) for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))


def _weights(net: Net, mesh) -> float:
  """Bytes of the weights a chip reads for one pass, in the type of the computation."""
  return sum(size.num_params(net.config)) * jnp.dtype(net.config.dtype).itemsize / mesh.shape["model"]


def _decoded(net: Net, scoring: bool = False):
  """The parameters as `network.for_decoding` gives them: a list of layers, cut over model alone."""
  shapes = jax.eval_shape(functools.partial(net.network.computed, scoring=scoring), net.params)
  stored = {**net.params, "layers": [net.params["layers"]] * net.config.num_layers}
  def cut(x, old):
    spec = PartitionSpec(*old.sharding.spec[old.ndim - x.ndim:])  # a layer is not a stack
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(old.sharding.mesh, spec))
  return mesh_lib.abstract_over_model_alone(jax.tree.map(cut, shapes, stored))


def _placed(tree, mesh):
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, engine.layout(tree, mesh))


def _training(name: str, net: Net, learner: fit.Learner, batch, mesh, *, pieces: int, resident, logits: bool) -> Program:
  rows, width = batch.token_bt.shape
  forward = rows * size.forward_flops(net.config, 0, width, width if logits else 0)
  layer_inputs = 2 * rows * width * net.config.width * net.config.num_layers * jnp.dtype(net.config.dtype).itemsize / mesh_lib.num_parts(mesh)
  counted = counts.training_bytes(net.config, mesh.shape, rows=rows, width=width, pieces=pieces, logit_chunk=net.logit_chunk, logits=logits)
  return Program(name, lambda: learner.step.lower(learner.like, batch, jax.random.key(0)), learner.like, resident, 4.0 * forward,
                 2 * bytes_on_a_chip(learner.like) + 3 * pieces * _weights(net, mesh) + layer_inputs, counted)


def _learner(knobs, net: Net, loss_fn, mesh) -> fit.Learner:
  return fit.learner(knobs, mesh, init=net.network.init, patterns=architecture.SHARDING, loss_fn=loss_fn)


def _text_program(name: str, section: str, width: int, config, mesh) -> list[Program]:
  knobs, net = config[section], _net(config.policy, mesh)
  batch = text.TextBatch(_rows(mesh, knobs.batch_size, width, dtype=jnp.int32), _rows(mesh, knobs.batch_size, width))
  learner = _learner(knobs, net, text.language_loss(net.network), mesh)
  return [_training(name, net, learner, batch, mesh, pieces=knobs.microbatches, resident={}, logits=True)]


def _sft(config, mesh) -> list[Program]:
  return _text_program("sft: update", "sft", config.problems.max_prompt + config.problems.max_solution, config, mesh)


def _rft(config, mesh) -> list[Program]:
  return _text_program("rft: update", "rft", config.problems.max_prompt + config.rollouts.max_new, config, mesh)


def _verifier(config, mesh) -> list[Program]:
  net, found, alike = _net(config.verifier.model, mesh), [], {}
  for kind in config.verifier.kinds:
    sources = config.verifier.labels if kind in taught.FROM_OTHERS else "monte_carlo"
    alike.setdefault((config.verifier[targets.section_of(kind)].to_json(), kind == "q" and config.verifier.every_token, sources,
                      kind == "implicit"), []).append(kind)
  for (_, every_token, sources, _), kinds in alike.items():  # one program for all that are trained alike
    knobs, shapes = config.verifier[targets.section_of(kinds[0])], []
    if sources != "imported":
      shapes.append((config.problems.max_prompt + config.rollouts.max_new, config.rollouts.max_new if every_token else config.monte_carlo.max_steps))
    if sources != "monte_carlo":
      shapes.append((config.labels.max_prompt + config.labels.max_response, config.labels.max_steps))
    width, prefixes = map(max, zip(*shapes))
    floats = _rows(mesh, knobs.batch_size, 1 + prefixes)
    token_bt, text_bt = _rows(mesh, knobs.batch_size, width, dtype=jnp.int32), _rows(mesh, knobs.batch_size, width)
    if outcomes := kinds == ["implicit"]:
      b, bt = _rows(mesh, knobs.batch_size), _rows(mesh, knobs.batch_size, width - 1)
      batch, loss_fn = implicit.OutcomeBatch(token_bt, bt, bt, b, b), implicit.outcome_loss(net.network, config.verifier.implicit_beta)
    else:
      batch = verifiers.ValueBatch(token_bt, text_bt, _rows(mesh, *floats.shape, dtype=jnp.int32), floats, floats)
      loss_fn = verifiers.value_loss(net.network, config.verifier.text_weight)
    found.append(_training(f"verifier {', '.join(kinds)}: update", net, _learner(knobs, net, loss_fn, mesh), batch, mesh, pieces=knobs.microbatches,
                           resident={}, logits=outcomes or bool(config.verifier.text_weight)))
  return found


def _tokens(config: gemma.GemmaConfig, mesh) -> engine.Tokens:
  v = config.vocab_size
  return engine.Tokens(_whole(mesh), _whole(mesh), _whole(mesh, v, dtype=bool), _whole(mesh, v, dtype=jnp.int32),
                       _whole(mesh, 4, 2, dtype=jnp.int32), _whole(mesh, 4, 2, dtype=bool))


def _token_bytes(config: gemma.GemmaConfig, mesh) -> float:
  """Bytes of a token's keys and values in all layers on a chip that has its row; heads lie over model where they divide."""
  heads = config.num_kv_heads / (1 if config.num_kv_heads % mesh.shape["model"] else mesh.shape["model"])
  return 2 * config.num_layers * heads * config.head_width * jnp.dtype(config.dtype).itemsize


def _decoding(name: str, net: Net, mesh, *, rows: int, share: int, width: int, slots: int, sampling, resident) -> list[Program]:
  """The engine's two programs: a prefill of the lanes that are refilled together, and a decoding step."""
  config, (lanes, share, at_once) = net.config, jobs_lib.lanes_of(rows, share, mesh)
  params = _decoded(net)
  state = jax.eval_shape(lambda params: engine.empty(net.network, params, lanes=lanes, rows=share, jobs=jobs_lib.JOBS_PER_LANE,
                                                     width=width, slots=slots), params)
  state = _placed(state, mesh)
  tokens = _tokens(config, mesh)
  work = jax.tree.map(lambda x: _rows(mesh, at_once, *x.shape[1:], dtype=x.dtype), state.work)
  a_token = _token_bytes(config, mesh)
  local = config.num_local_layers / config.num_layers
  # A row in the middle of its answer: what of its suffix, and of its source, is within the window.
  near, near_source = min(slots / 2, config.window), min(width, max(0, config.window - slots / 2))
  seen = lanes / mesh_lib.num_parts(mesh) * a_token * (
      (1 - local) * (width + share * slots / 2) + local * (near_source + share * near))
  ids = lambda *shape: _rows(mesh, *shape, dtype=jnp.int32)
  install = lambda: engine.install.lower(net.network, params, state, ids(at_once), ids(at_once, width), work, mesh=mesh)
  advance = lambda: engine.advance.lower(net.network, params, state, tokens, _whole(mesh), lines=jobs_lib.lines_of(slots),
                                         sampling=sampling)
  middle = width + slots // 2
  return [Program(f"{name}: prefill of {at_once}", install, (params, state), resident,
                  float(at_once * size.forward_flops(config, 0, width)), _weights(net, mesh) + at_once / mesh_lib.num_parts(mesh) * width * a_token),
          Program(f"{name}: token of {lanes * share} rows", advance, (params, state), resident,
                  float(lanes * share * size.forward_flops(config, middle, middle + 1, 1)), _weights(net, mesh) + seen)]


def _rollouts(config, mesh) -> list[Program]:
  net, knobs = _net(config.policy, mesh), config.rollouts
  return _decoding("rollouts", net, mesh, rows=knobs.rows, share=jobs_lib.rows_of_lane(knobs.n_cov), width=config.problems.max_prompt,
                   slots=knobs.max_new, sampling=collect.sampling_of(knobs), resident={"policy": net.params})


def _values(config, mesh) -> list[Program]:
  net, knobs = _net(config.policy, mesh), config.monte_carlo
  share = jobs_lib.rows_of_lane(knobs.n_mc * knobs.max_steps)
  return _decoding("values", net, mesh, rows=knobs.rows, share=share, width=config.problems.max_prompt + config.rollouts.max_new,
                   slots=config.rollouts.max_new, sampling=collect.sampling_of(knobs), resident={"policy": net.params})


def _rl(config, mesh) -> list[Program]:
  """Policy, reference, value function and verifier together, each where it lies during the whole run; an arm's own prover, too, taken
  for as large as the verifier."""
  knobs, net, judge = config.rl, _net(config.policy, mesh), _net(config.verifier.model, mesh)
  learners = arms.learners_of(knobs, net.network, mesh, peak_lr=knobs.peak_lr, kl=knobs.kl, beside=reading.beside(knobs))
  learnt = {name: learner.like for name, learner in learners.beside.items()}
  called = {"value": "value function", "reward_model": "reward model"}
  here = {"policy and its optimiser": learners.policy.like, "reference": net.params, "verifier": judge.params}
  prover = judge if any("@" in arm for arm in knobs.arms) else None
  judges = [judge] if prover is None else [judge, prover]
  here |= {} if prover is None else {"prover": prover.params}
  here |= {f"{called[name]} and its optimiser": like for name, like in learnt.items()}
  without = lambda *names: {name: tree for name, tree in here.items() if name not in names}
  width, rows = config.problems.max_prompt + config.rollouts.max_new, knobs.batch_size * knobs.group
  token_bt, float_bt = _rows(mesh, rows, width, dtype=jnp.int32), _rows(mesh, rows, width - 1)
  batch = losses.RolloutBatch(token_bt, *[float_bt] * 5)
  read = lambda: reading.read_all.lower(
      mesh, net.network, judge.network, prover and prover.network, net.params, net.params,
      {name: like.params for name, like in learnt.items()}, judge.params, prover and prover.params, token_bt)
  policies, logits = 2 + len(learnt), {"value": 0, "reward_model": width}
  flops = rows * (2 * size.forward_flops(net.config, 0, width, width) + len(judges) * size.forward_flops(judge.config, 0, width)
                  + sum(size.forward_flops(net.config, 0, width, logits[name]) for name in learnt))
  optimiser = lambda state: state.opt_state
  beside = {"optimiser of the policy": optimiser(learners.policy.like)}
  beside |= {f"optimiser of the {called[name]}": optimiser(like) for name, like in learnt.items()}
  found = _decoding("rl", net, mesh, rows=min(knobs.rows, rows), share=min(knobs.group, knobs.share), width=config.problems.max_prompt,
                    slots=config.rollouts.max_new, sampling=collect.sampling_of(config.rollouts)._replace(temperature=1.0), resident=here)
  found.append(Program("rl: reading by all", read, (net.params, *(of.params for of in judges)), beside, float(flops),
                       policies * _weights(net, mesh) + len(judges) * _weights(judge, mesh)))
  pieces = knobs.microbatches
  found.append(_training("rl: policy's update", net, learners.policy, batch, mesh, pieces=pieces,
                         resident=without("policy and its optimiser"), logits=True))
  for name, learner in learners.beside.items():
    found.append(_training(f"rl: {called[name]}'s update", net, learner, batch, mesh, pieces=pieces,
                           resident=without(f"{called[name]} and its optimiser"), logits=logits[name] > 0))
  return found


def _search(config, mesh) -> list[Program]:
  """Independent samples and what scores them; beam search of the greatest width."""
  knobs, nets = config.search, (_net(config.policy, mesh), _net(config.verifier.model, mesh))
  stored = {"policy": nets[0].params, "verifier of Q": nets[1].params, "ORM": nets[1].params}
  found = _decoding("search samples", nets[0], mesh, rows=knobs.rows, share=jobs_lib.rows_of_lane(knobs.max_n),
                    width=config.problems.max_prompt, slots=config.rollouts.max_new, sampling=collect.sampling_of(knobs), resident=stored)
  return [*found, _scoring(nets[1], config, mesh, stored), *_beams(nets, config, mesh, stored)]


def _scoring(net: Net, config, mesh, resident) -> Program:
  """Responses that a verifier reads in one call."""
  parts, prompt, new = mesh_lib.num_parts(mesh), config.problems.max_prompt, config.rollouts.max_new
  rows = max(1, config.search.rows // parts) * parts
  ids, params = lambda *shape: _rows(mesh, *shape, dtype=jnp.int32), _decoded(net, scoring=True)
  lower = lambda: score.after_prompts.lower(net.network, params, ids(rows, prompt), ids(rows), ids(rows), ids(rows, new), ids(rows),
                                            ids(rows, config.monte_carlo.max_steps + 1), mesh=mesh)
  return Program(f"search: scoring of {rows} rows", lower, params, resident, float(rows * size.forward_flops(net.config, 0, prompt + new)),
                 2 * _weights(net, mesh))


def _beams(nets: tuple[Net, Net], config, mesh, stored) -> list[Program]:
  knobs = config.search
  networks, params = tuple(net.network for net in nets), [_decoded(nets[0]), _decoded(nets[1], scoring=True)]
  parts, width, slots = mesh_lib.num_parts(mesh), max(knobs.widths), config.problems.max_prompt + config.rollouts.max_new
  own = lanes_lib.lanes_of(knobs.rows, knobs.candidates, width, parts)
  lanes, rows, at_once = own * parts, own * parts * knobs.candidates, -(-own // (4 * width)) * parts
  prefixes = [_placed(jax.eval_shape(lambda p, n=n: engine.blank(n, p, lanes, slots), p), mesh) for n, p in zip(networks, params)]
  ids = lambda *shape: _rows(mesh, *shape, dtype=jnp.int32)
  begin = lambda: lanes_lib.admit.lower(
      networks, params, prefixes, ids(at_once, config.problems.max_prompt), ids(at_once), ids(at_once * width), ids(at_once * width), mesh=mesh)
  keys = jax.ShapeDtypeStruct((rows,), jax.random.key(0).dtype, sharding=NamedSharding(mesh, mesh_lib.ROWS))
  sampling = collect.sampling_of(knobs)
  step = dict(candidates=knobs.candidates, max_step=knobs.max_step, lookahead=0, sampling=sampling, ahead=sampling, mesh=mesh)
  arguments = (networks, params, prefixes, *[ids(lanes)] * 4, keys, _tokens(nets[0].config, mesh))
  caches = _placed(jax.eval_shape(functools.partial(lanes_lib.expand, networks, **step), *arguments[1:])[3], mesh)
  forward = lambda count, at, new, logits: sum(
      count * size.forward_flops(net.config, at, at + new, logits if net is nets[0] else 0) for net in nets)
  weights = sum(_weights(net, mesh) for net in nets)
  kept = sum(bytes_on_a_chip(prefix) for prefix in prefixes)
  return [
      Program(f"search: prefill of {at_once}", begin, (params, prefixes), stored, float(forward(at_once, 0, config.problems.max_prompt, 0)), weights),
      Program(f"search: step of {rows} candidates", lambda: lanes_lib.expand.lower(*arguments, **step), (params, prefixes), stored,
              float(forward(rows, slots // 2, knobs.max_step, knobs.max_step)), (knobs.max_step + 1) * _weights(nets[0], mesh)
              + _weights(nets[1], mesh) + (knobs.max_step + 1) * bytes_on_a_chip(prefixes[0]) + bytes_on_a_chip(prefixes[1])),
      Program("search: candidates become items", lambda: lanes_lib.commit.lower(prefixes, caches, ids(lanes), mesh=mesh), (prefixes, caches),
              stored | {"decoding copies": params}, 0.0, 2.0 * kept)]


_STAGES = {"search": _search, "sft": _sft, "rollouts": _rollouts, "values": _values, "verifier": _verifier, "rft": _rft, "rl": _rl}
