"""The rollout engine against other samplers, on the same weights and prompts, in one process.

  make benchmark                                          everything, on this machine
  python tests/benchmarks/rollouts.py --jobs=c512 --peers= --size=gemma2_2b --dtype=bfloat16     an accelerator, ours alone

Three jobs, counted in new tokens a second (a, b) or continuations a second (c):

  a      independent samples, one a prompt, of equal length
  b      the same with the spread of lengths of real solutions: log-normal, sigma
         .487, cut at .2 and 4.8 times the median, as GSM8K's training solutions
  c64    Monte-Carlo values: 16 problems x 4 seeds x 8 prefixes x 16 continuations,
  c512   each to the end of a response of 128 tokens; prompts of 64, of 512 tokens

Lengths are set by budgets and EOS is never drawn, so every system does the
same work. What helps the peers: caches as long as needed and no longer, the
best of several batch sizes, everything compiled before, prompts of one length;
in (b) a batch runs until its longest row ends, as their loops do; in (c) a
batch holds prefixes of one length, no row waits, and one batch of each length
stands for all. Ours does the whole of each job. Repetitions take turns among
the systems; a ratio is of medians, its spread the least and the most that
repetitions give.

Also printed, for float32 and bfloat16 and for 4 and 26 layers: how far the
log-probabilities the engine returns lie from the training forward's.

The last line is JSON; --results appends it to a file.
"""

import argparse
import dataclasses
import json
import pathlib
import platform
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.models import gemma
from pav_jax.models import network as network_lib
from pav_jax.models import size
from pav_jax.rollouts import engine
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.rollouts import sampling

SMALL = gemma.GemmaConfig(4, 128, 4, 2, 32, 384, 32**-0.5, vocab_size=512)
RESPONSE, STEP, PROBLEMS, SEEDS, CONTINUATIONS = 128, 16, 16, 4, 16
NEVER = 3  # ids 0, 1, 2: padding, EOS, BOS


class Job:
  """What is to be drawn: source_bt of equal length, and of each row where it is cut and how far it goes on."""

  def __init__(self, name: str, vocab_size: int, samples: int, median: int):
    rng = np.random.default_rng(0)
    self.name, self.unit = name, "token"
    if name in ("a", "b"):
      self.source_bt = rng.integers(NEVER, vocab_size, (samples, 64)).astype(np.int32)
      self.source_r, self.cut_r = np.arange(samples, dtype=np.int32), np.full(samples, 64, np.int32)
      spread_r = np.clip(np.exp(0.487 * rng.standard_normal(samples)), 0.2, 4.8)
      self.new_r = np.full(samples, RESPONSE, np.int32) if name == "a" else np.round(median * spread_r).astype(np.int32)
      self.amount = int(self.new_r.sum())
    elif name in ("c64", "c512"):
      prompt = int(name[1:])
      prompt_bt = np.repeat(rng.integers(NEVER, vocab_size, (PROBLEMS, prompt)), SEEDS, axis=0)
      self.source_bt = np.concatenate(
          [prompt_bt, rng.integers(NEVER, vocab_size, (PROBLEMS * SEEDS, RESPONSE - STEP))], axis=1).astype(np.int32)
      kept_z = np.arange(0, RESPONSE, STEP)
      source, kept, _ = np.meshgrid(np.arange(PROBLEMS * SEEDS), kept_z, np.arange(CONTINUATIONS), indexing="ij")
      self.source_r, kept_r = source.ravel().astype(np.int32), kept.ravel()
      self.cut_r, self.new_r = (prompt + kept_r).astype(np.int32), (RESPONSE - kept_r).astype(np.int32)
      self.amount, self.unit = len(self.source_r), "continuation"
    else:
      raise SystemExit(f"error: --jobs: {name!r} is none of a, b, c64, c512")

  def least(self, config: gemma.GemmaConfig, rows: int, share: int) -> dict:
    """FLOPs and bytes that the job needs at least: every token once; weights and seen keys once a step of `rows` rows.

    A lane's `share` rows read their source's keys once a step for all of them; the prefill its weights once.
    """
    item = jnp.dtype(config.dtype).itemsize
    flops = size.forward_flops(config, 0, np.full(len(self.source_bt), self.source_bt.shape[1])).sum()
    flops += size.forward_flops(config, self.cut_r - 1, self.cut_r - 1 + self.new_r, self.new_r).sum()
    steps = self.new_r.sum() / rows
    weights = sum(size.num_params(config)) * item
    a_token = 2 * config.num_layers * config.num_kv_heads * config.head_width * item
    own = (self.new_r.astype(float) * (self.new_r + 1) / 2).sum() * a_token
    shared = (self.cut_r.astype(float) * self.new_r).sum() * a_token / share
    return {"flops": float(flops), "bytes": float(steps * weights + own + shared)}


def tokens_of(vocab_size: int) -> engine.Tokens:
  ids_v = np.arange(vocab_size)
  return engine.Tokens(jnp.int32(1), jnp.int32(0), jnp.asarray(ids_v < NEVER), jnp.zeros(vocab_size, jnp.int32),
                       jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1), bool))


def ours(network, params, job: Job, rows: int, share: int, vocab_size: int):
  """A function that does the whole job and returns its seconds."""
  length_b = np.full(len(job.source_bt), job.source_bt.shape[1])
  names_rn = np.stack([job.source_r, np.arange(len(job.source_r))], axis=1).astype(np.int32)
  work = jobs_lib.Jobs(job.source_r, job.cut_r, job.new_r, names_rn)
  per_source = -(-len(job.source_r) // len(job.source_bt))
  def run(seed):
    start = time.perf_counter()
    done = jobs_lib.run(network, params, job.source_bt, length_b, work, tokens_of(vocab_size), rows=rows, share=share,
                        jobs_per_lane=per_source, max_new=int(job.new_r.max()), sampling=sampling.Sampling(), seed=seed)
    seconds = time.perf_counter() - start
    if int(done.length_r.sum()) != int(job.new_r.sum()):
      raise RuntimeError(f"{int(done.length_r.sum())} tokens were drawn, not {int(job.new_r.sum())}")
    return seconds
  return run


def peers_seconds(sample, job: Job, batch: int):
  """A function that returns the seconds a peer takes for the job at this batch size."""
  def one(rows_b, seed):
    cut, new = int(job.cut_r[rows_b[0]]), int(job.new_r[rows_b].max())
    prompt_bt = job.source_bt[job.source_r[rows_b], :cut]
    start = time.perf_counter()
    out_bt = sample(prompt_bt, new, seed=seed)
    seconds = time.perf_counter() - start
    if out_bt.shape != (len(rows_b), new) or (out_bt < NEVER).any():
      raise RuntimeError(f"a peer drew {out_bt.shape}, not {(len(rows_b), new)}, or what it must not")
    return seconds

  def run(seed):
    total = 0.0
    if job.name in ("a", "b"):
      order_r = np.arange(len(job.cut_r))
      for start in range(0, len(order_r), batch):
        total += one(order_r[start:start + batch], seed)
      return total
    for cut in np.unique(job.cut_r):
      rows_r = np.flatnonzero(job.cut_r == cut)
      total += one(rows_r[:batch], seed) * len(rows_r) / len(rows_r[:batch])
    return total
  return run


def parity(config: gemma.GemmaConfig, dtype: str, layers: int) -> dict:
  """|training forward - engine| of the log-probabilities of 64 x 128 drawn tokens, random weights: their spread."""
  config = dataclasses.replace(config, num_layers=layers, dtype=dtype, param_dtype=dtype)
  network = network_lib.from_gemma(config, scoring_id=4)
  params = jax.jit(network.init)(jax.random.key(0))
  prompt = 64
  source_bt = np.random.default_rng(0).integers(NEVER, config.vocab_size, (64, prompt)).astype(np.int32)
  row_r = np.arange(64, dtype=np.int32)
  work = jobs_lib.Jobs(row_r, np.full(64, prompt, np.int32), np.full(64, RESPONSE, np.int32), row_r[:, None])
  done = jobs_lib.run(network, params, source_bt, np.full(64, prompt), work, tokens_of(config.vocab_size), rows=64, share=1,
                      jobs_per_lane=1, max_new=RESPONSE, sampling=sampling.Sampling(), seed=0)
  token_bt = jnp.asarray(np.concatenate([source_bt, done.token_rt], axis=1))
  # The never-drawn ids are left out of the engine's distribution only in what it draws: its log-probabilities are the model's.
  trained_bt = jax.jit(network_lib.token_log_probs, static_argnums=0)(network, params, token_bt)
  gap_rt = np.abs(np.asarray(trained_bt)[:, prompt - 1:] - done.log_prob_rt)
  return {"dtype": dtype, "layers": layers, "mean": float(gap_rt.mean()), "p99": float(np.quantile(gap_rt, 0.99)),
          "max": float(gap_rt.max())}


def ceilings() -> dict:
  """Bytes a second of a large copy (read and written, in place) and FLOPs a second of a large product; the best of five."""
  on_cpu = jax.default_backend() == "cpu"
  def best(function, state, *rest):
    state = jax.block_until_ready(function(state, *rest))
    times = []
    for _ in range(5):
      start = time.perf_counter()
      state = jax.block_until_ready(function(state, *rest))
      times.append(time.perf_counter() - start)
    return min(times)
  n = 2**26 if on_cpu else 2**30
  # Donated, or the time is that of the system finding pages for a new array.
  copy = 2 * n * 4 / best(jax.jit(lambda x: x + 1, donate_argnums=0), jnp.zeros(n, jnp.float32))
  m = 2048 if on_cpu else 8192
  product = {dtype: 2 * m**3 / best(jax.jit(jnp.matmul), *[jnp.ones((m, m), dtype)] * 2) for dtype in ("float32", "bfloat16")}
  return {"bytes_per_s": copy, "flops_per_s": product}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--jobs", default="a,b,c64,c512")
  parser.add_argument("--peers", default="gemma Sampler,Tunix Sampler,transformers generate")
  parser.add_argument("--size", default="small", help=f"small (4 layers of 128) or one of {', '.join(gemma.SIZES)}")
  parser.add_argument("--dtype", default="float32")
  parser.add_argument("--rows", type=int, default=256, help="rows of ours that decode together in jobs a and c")
  parser.add_argument("--rows_b", type=int, default=64, help="the same in job b, whose end is long")
  parser.add_argument("--share", type=int, default=32, help="rows of a lane in job c")
  parser.add_argument("--samples", type=int, default=512, help="samples of jobs a and b")
  parser.add_argument("--median", type=int, default=96, help="median length in job b, in tokens")
  parser.add_argument("--batches", default="64,256", help="batch sizes the peers may choose from")
  parser.add_argument("--repetitions", type=int, default=3)
  parser.add_argument("--results", default="", help="a file the JSON line is appended to")
  options = parser.parse_args()
  config = SMALL if options.size == "small" else gemma.SIZES[options.size]
  config = dataclasses.replace(config, dtype=options.dtype, param_dtype=options.dtype)
  network = network_lib.from_gemma(config, scoring_id=4)
  params = jax.jit(network.init)(jax.random.key(0))
  device = f"{jax.devices()[0].device_kind} x {jax.device_count()}"
  if jax.default_backend() == "cpu":
    device += f", {cpu_name()}"
  say(f"{device}; {options.size} {options.dtype}, {sum(size.num_params(config)):,} parameters; {options.repetitions} repetitions")
  peers = {}
  if options.peers:
    import peers as peers_lib
    for name in options.peers.split(","):
      try:
        peers[name] = peers_lib.PEERS[name](config, params)
      except ImportError as error:
        say(f"{name} is not here: {error}")
  limit = ceilings()
  say(f"ceilings: copy {limit['bytes_per_s'] / 1e9:.1f} GB/s, product " + ", ".join(
      f"{x / 1e9:,.0f} GFLOP/s in {d}" for d, x in limit["flops_per_s"].items()))
  found = {"device": device, "jax": jax.__version__, "size": options.size, "dtype": options.dtype,
           "rows": options.rows, "rows_b": options.rows_b, "share": options.share, "ceilings": limit, "parity": [], "jobs": {}}
  if options.size == "small":
    for dtype in ("float32", "bfloat16"):
      for layers in (4, 26):
        found["parity"].append(gap := parity(config, dtype, layers))
        say("parity: {dtype}, {layers} layers: mean {mean:.1e}, 99 % below {p99:.1e}, greatest {max:.1e}".format(**gap))
  for name in filter(None, options.jobs.split(",")):
    found["jobs"][name] = measure(Job(name, config.vocab_size, options.samples, options.median), config, network, params,
                                  peers, limit, options)
  line = json.dumps(found)
  if options.results:
    with open(options.results, "a", encoding="utf-8") as file:
      file.write(line + "\n")
  print(line)


def measure(job: Job, config, network, params, peers, limit, options) -> dict:
  """Times ours and the peers in turn; prints and returns rates, ratios and the distance to the limit."""
  share = 1 if job.name in ("a", "b") else options.share
  rows = options.rows_b if job.name == "b" else options.rows
  runs = {"ours": ours(network, params, job, rows, share, config.vocab_size)}
  runs["ours"](0)
  batch_of = {}
  for name, sample in peers.items():
    choices = {}
    for batch in map(int, options.batches.split(",")):
      run = peers_seconds(sample, job, batch)
      run(0)  # compiles
      choices[batch] = run(1) if "," in options.batches else 0.0
    batch_of[name] = min(choices, key=choices.get)
    runs[name] = peers_seconds(sample, job, batch_of[name])
  seconds = {name: [] for name in runs}
  for repetition in range(options.repetitions):
    for name, run in runs.items():
      seconds[name].append(run(2 + repetition))
      say(f"job {job.name}: {name}: {job.amount / seconds[name][-1]:,.0f} {job.unit}s/s")
  rate = lambda name: job.amount / np.median(seconds[name])
  least = job.least(config, rows, share)
  bound = {"flops": least["flops"] / limit["flops_per_s"][options.dtype], "bytes": least["bytes"] / limit["bytes_per_s"]}
  bound_s = max(bound.values())
  result = {"amount": job.amount, "unit": job.unit, "new_tokens": int(job.new_r.sum()),
            "ours_per_s": rate("ours"), "ours_tokens_per_s": job.new_r.sum() / np.median(seconds["ours"]),
            "least": least, "bound_s": bound, "share_of_bound": bound_s / np.median(seconds["ours"]), "peers": {}}
  say(f"job {job.name}: ours {rate('ours'):,.0f} {job.unit}s/s, {result['ours_tokens_per_s']:,.0f} tokens/s; at least "
      f"{least['flops'] / 1e9:,.0f} GFLOP and {least['bytes'] / 1e9:,.0f} GB, {bound_s:.2f} s by the ceilings: "
      f"{100 * result['share_of_bound']:.0f} % of the limit")
  for name in peers:
    ratios = [theirs / mine for theirs, mine in zip(seconds[name], seconds["ours"])]
    result["peers"][name] = {"per_s": rate(name), "batch": batch_of[name], "ratio": rate("ours") / rate(name),
                             "ratio_low": min(ratios), "ratio_high": max(ratios)}
    say(f"job {job.name}: {rate('ours') / rate(name):.2f} x {name} (batch {batch_of[name]}; {min(ratios):.2f} to {max(ratios):.2f})")
  return result


def say(line: str):
  print(line, file=sys.stderr, flush=True)


def cpu_name() -> str:
  lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if pathlib.Path("/proc/cpuinfo").exists() else []
  return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
  main()
