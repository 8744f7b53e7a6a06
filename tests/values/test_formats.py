"""Labels as others write them: each format's rows, by hand, and what is told of broken ones."""

import collections
import json
import math

import pytest

from pav_jax.problems import fields
from pav_jax.values import formats

NAN = math.nan
Q = "What is 2 + 3 + 4?"


def read(name, row, **options):
  """(solutions, what was counted); the row goes through JSON, as in a file."""
  counts = collections.Counter()
  found = [x for x in formats.FORMATS[name](fields.decode(json.dumps(row).encode()), counts, **options) if any(x.count_z)]
  for x in found:
    assert len(x.label_z) == len(x.count_z) == len(x.steps) + 1
    assert all(math.isnan(label) == (n == 0) for label, n in zip(x.label_z, x.count_z))
  return found, {what: n for what, n in counts.items() if n}


def table(solution):
  """(step, label, count) of each prefix; '' is the bare question."""
  return [(step, None if math.isnan(label) else label, n) for step, label, n in zip(("", *solution.steps), solution.label_z, solution.count_z)]


def test_trl():
  """Booleans, whole numbers and fractions; null is no label."""
  [found], counts = read("trl", {"prompt": Q, "completions": ["2 + 3 = 5", "5 + 4 = 8", "so 8", "8"], "labels": [True, 0, 0.3, None]})
  assert (found.question, found.ended, counts) == (Q, True, {})
  assert table(found) == [("", None, 0), ("2 + 3 = 5", 1.0, 1), ("5 + 4 = 8", 0.0, 1), ("so 8", 0.3, 1), ("8", None, 0)]
  assert {type(label) for label in found.label_z} == {float}


def test_trl_as_a_conversation():
  row = {"prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": Q}],
         "completions": [{"role": "assistant", "content": "9"}], "labels": [1.0]}
  [found], _ = read("trl", row)
  assert (found.question, found.steps) == (Q, ("9",))


def test_trl_as_we_write_it():
  """With counts, a label of the bare question, and whether the response is over; a step that is eos alone has no text."""
  row = {"prompt": Q, "completions": ["5", ""], "labels": [0.75, 1.0], "counts": [4, 1], "prompt_label": 0.5, "prompt_count": 8, "ended": True}
  [found], _ = read("trl", row)
  assert table(found) == [("", 0.5, 8), ("5", 0.75, 4), ("", 1.0, 1)]
  [found], _ = read("trl", row | {"completions": ["5", "9"], "ended": False, "prompt_label": None, "prompt_count": 0})
  assert not found.ended and table(found)[0] == ("", None, 0)


def prm(*steps, reason="solution"):
  return {"labeler": "x", "question": {"problem": Q, "ground_truth_answer": "9"}, "label": {"steps": list(steps), "finish_reason": reason}}


def step(*rated, chosen=0, human=None):
  return {"completions": [{"text": text, "rating": rating, "flagged": None} for text, rating in rated] or None,
          "human_completion": human, "chosen_completion": chosen}


PRM = prm(step(("2 + 3 = 5", 1), ("2 + 3 = 6", -1)), step(("Now 4.", 0)), step(("5 + 4 = 8", -1), ("5 - 4", -1), chosen=None,
          human={"text": "5 + 4 = 9", "rating": None, "source": "human"}), step(("Nine.\n\n# Answer\n\n9", 1), ("So\n\n# Answer\n\n8", -1)))


def test_prm800k_alternatives_are_prefixes_of_their_own():
  """Each rating comes once: the chosen steps in one solution, every alternative at the end of another."""
  found, counts = read("prm800k", PRM)
  chain = [("", None, 0), ("2 + 3 = 5", 1.0, 1), ("Now 4.", 1.0, 1), ("5 + 4 = 9", 1.0, 1), ("Nine.\n\n# Answer\n\n9", 1.0, 1)]
  silent = [(text, None, 0) for text, *_ in chain]
  assert [(table(x), x.ended) for x in found] == [
      ([("", None, 0), ("2 + 3 = 6", 0.0, 1)], False),
      ([*silent[:3], ("5 + 4 = 8", 0.0, 1)], False),
      ([*silent[:3], ("5 - 4", 0.0, 1)], False),
      ([*silent[:4], ("So\n\n# Answer\n\n8", 0.0, 1)], True),
      (chain, True)]
  assert counts == {"neutral ratings": 1}


@pytest.mark.parametrize("neutral, label", [("good", 1.0), ("bad", 0.0), ("out", None)])
def test_prm800k_neutral(neutral, label):
  *_, chain = read("prm800k", PRM, neutral=formats.NEUTRAL[neutral])[0]
  assert [x[1] for x in table(chain)] == [None, 1.0, label, 1.0, 1.0]


def test_prm800k_where_it_stops():
  """At a first error nothing is chosen: its first completion ends the chain. Null ratings and steps that nobody rated say nothing."""
  found, counts = read("prm800k", prm(step(("2 + 3 = 5", 1)), step(("5 + 4 = 8", -1), ("5 + 4 = 9", 1), ("hm", None), (" ", 1), chosen=None),
                                      step(("never", 1)), reason="found_error"))
  assert [table(x) for x in found] == [
      [("", None, 0), ("2 + 3 = 5", None, 0), ("5 + 4 = 9", 1.0, 1)],
      [("", None, 0), ("2 + 3 = 5", 1.0, 1), ("5 + 4 = 8", 0.0, 1)]]
  assert counts == {"alternatives without a text": 1} and not any(x.ended for x in found)
  found, counts = read("prm800k", prm(step(("2 + 3 = 5", 1)), step(chosen=None), reason="give_up"))
  assert [table(x)[1:] for x in found] == [[("2 + 3 = 5", 1.0, 1)]] and counts == {"steps that nobody rated": 1}
  assert read("prm800k", prm(step(("2", 1)), reason="bad_problem")) == ([], {"problems that their labeller called broken": 1})
  assert read("prm800k", prm(step(("2", None)))) == ([], {})
  assert read("prm800k", {"question": {"problem": Q}, "label": {"steps": None, "finish_reason": "give_up"}}) == ([], {})


def shepherd(text):
  """A row from a text in which each tag is written with its label: [+] or [-]."""
  return {"input": text.replace("[+]", "ки").replace("[-]", "ки"), "label": text.replace("[+]", "+").replace("[-]", "-"), "task": "GSM8K"}


@pytest.mark.parametrize("text, question, steps, labels, ended, told", [
    (f"{Q} Step 1: 2 + 3 = <<2+3=5>>5 [+]\nStep 2: 5 + 4 = 8. The answer is: 8 [-]", Q,
     ["Step 1: 2 + 3 = <<2+3=5>>5", "Step 2: 5 + 4 = 8. The answer is: 8"], [1, 0], True, {}),
    (f"{Q} step 1: 2 - +3 - \n+4 [-]\nStep 2: - [+] \n", Q, ["step 1: 2 - +3 - \n+4", "Step 2: -"], [0, 1], True, {}),
    (f"Add up. [+] {Q} Step 1: nine [-]", f"Add up.  {Q}", ["Step 1: nine"], [0], True, {"tags inside of a question": 1}),
    (f"{Q} 2 + 3 is 5 [+] so 9 [+]", Q, ["2 + 3 is 5", "so 9"], [1, 1], True, {}),
    (f"{Q} Step 1: five [+]\nStep 2: nine", Q, ["Step 1: five"], [1], False, {"last steps without a tag": 1}),
])
def test_math_shepherd(text, question, steps, labels, ended, told):
  [found], counts = read("math_shepherd", shepherd(text))
  assert (found.question, list(found.steps), list(found.label_z[1:]), found.ended, counts) == (question, steps, labels, ended, told)


def test_math_aps_states():
  """A share a prefix; states come with each of their rollouts; one is the bare question."""
  states = [("", 0.63), ("", 0.63), ("Two and three", 0.95), ("Two and three", 0.95), ("Two and three make 6", 0.05)]
  found, counts = read("math_aps", {"q": Q, "states": [{"state": state, "rollout": str(n), "mcs": mcs} for n, (state, mcs) in enumerate(states)]})
  assert [table(x) for x in found] == [[("", 0.63, 1)], [("", None, 0), ("Two and three", 0.95, 1)], [("", None, 0), ("Two and three make 6", 0.05, 1)]]
  assert counts == {"prefixes that come again": 2} and not any(x.ended for x in found)


def test_math_aps_prefixes_that_begin_with_the_question():
  found, _ = read("math_aps", {"question": Q, "final_answer": "9", "reasoning_steps": [
      {"solution_prefix": Q, "mc_value": 0.75}, {"solution_prefix": Q + "\n\n\nTwo", "mc_value": 1}]})
  assert [table(x) for x in found] == [[("", 0.75, 1)], [("", None, 0), ("Two", 1.0, 1)]]


def test_math_aps_tree():
  leaf = lambda text, value: {"text": text, "mc_value": value, "children": []}
  root = {"text": Q, "mc_value": 0.5, "children": [{**leaf("five", 0.8), "children": [leaf("nine", 1.0), leaf("eight", 0.0)]}, leaf("six", 0.1)]}
  found, _ = read("math_aps", {"question": Q, "reasoning_steps": root})
  assert [table(x) for x in found] == [
      [("", 0.5, 1)], [("", None, 0), ("five", 0.8, 1)], [("", None, 0), ("five", None, 0), ("nine", 1.0, 1)],
      [("", None, 0), ("five", None, 0), ("eight", 0.0, 1)], [("", None, 0), ("six", 0.1, 1)]]


@pytest.mark.parametrize("row, expected", [
    ({"question": Q, "process": "five \n\n\n\n\n nine \n\n\n\n\n", "label": ["+", "-"]}, [("five", 1.0, 1), ("nine", 0.0, 1)]),
    ({"question": Q, "process": "five ки nine ки", "label": [0.7, 0.2]}, [("five", 0.7, 1), ("nine", 0.2, 1)]),
    ({"question": Q, "process": "five\n\nnine", "label": ["-"]}, [("five\n\nnine", 0.0, 1)]),
    ({"q": Q, "prefix": "five", "value": 0.25}, [("five", 0.25, 1)]),
    ({"problem": Q, "steps": ["five", "nine"], "score": 0.25}, [("five", None, 0), ("nine", 0.25, 1)]),
    ({"problem": Q, "steps": ["five", "nine"], "labels": [1, 0.25]}, [("five", 1.0, 1), ("nine", 0.25, 1)]),
    ({"q": Q, "state": "five ки nine ки", "mcs": 0.4}, [("five", None, 0), ("nine", 0.4, 1)]),
])
def test_math_aps_a_row_a_prefix(row, expected):
  [found], _ = read("math_aps", row)
  assert table(found)[1:] == expected


def changed(row, **changes):
  return {key: value for key, value in (row | changes).items() if value is not ...}


TRL = {"prompt": Q, "completions": ["a", "b"], "labels": [True, False]}
SHEPHERD = shepherd(f"{Q} Step 1: five [+]\nStep 2: nine [+]")
APS = {"q": Q, "states": [{"state": "a", "mcs": 0.5}]}


@pytest.mark.parametrize("name, row, field, reason", [
    ("trl", changed(TRL, labels=[True]), "labels", "1 for 2 completions"),
    ("trl", changed(TRL, labels=[True, 1.5]), "labels[1]", "1.5 is no label"),
    ("trl", changed(TRL, labels=[True, "1.5"]), "labels[1]", "'1.5' is no label"),
    ("trl", changed(TRL, labels=[True, "good"]), "labels[1]", "'good' is no label"),
    ("trl", changed(TRL, labels=[True, [1]]), "labels[1]", "is no label"),
    ("trl", changed(TRL, labels="+-"), "labels", "not a list"), ("trl", changed(TRL, labels=...), "labels", "missing"),
    ("trl", changed(TRL, completions=["a", " "], ended=False), "completions", "step 2 of 2 is empty"),
    ("trl", changed(TRL, completions=["\n", "b"]), "completions", "step 1 of 1 is empty"),
    ("trl", changed(TRL, completions=["a", 3]), "completions[1]", "not a string"),
    ("trl", changed(TRL, prompt=...), "prompt", "missing"), ("trl", changed(TRL, prompt=" "), "", "its question is empty"),
    ("trl", changed(TRL, counts=[1]), "counts", "1 for 2 labels"), ("trl", changed(TRL, counts=[1, 2.5]), "counts[1]", "2.5 is no number"),
    ("trl", changed(TRL, ended=1), "ended", "neither true nor false"), ("trl", changed(TRL, prompt="\ud800?"), "prompt", "half a surrogate"),
    ("prm800k", {"question": {"problem": Q}}, "label", "missing"), ("prm800k", {"question": {"problem": Q}, "label": {}}, "label.steps", "missing"), ("prm800k", {"question": Q}, "question", "not an object"),
    ("prm800k", prm(step(("a", 2))), "label.steps[0].completions[0].rating", "2 is none of -1, 0, 1"),
    ("prm800k", prm(step(("a", 1), chosen=1)), "label.steps[0].chosen_completion", "1 is no place among 1 completions"),
    ("prm800k", prm(step(("a", 1)), step(("", 1))), "label.steps[1].completions", "step 1 of 1 is empty"),
    ("prm800k", prm("a"), "label.steps[0]", "not an object"),
    ("math_shepherd", changed(SHEPHERD, label=SHEPHERD["label"].replace("five +", "five *")), "label", "for tag 1 of 2"),
    ("math_shepherd", changed(SHEPHERD, label=SHEPHERD["label"].replace("nine", "ten")), "label", "for tag 2 of 2"),
    ("math_shepherd", changed(SHEPHERD, label=SHEPHERD["label"][:-1]), "label", "for tag 2 of 2"),
    ("math_shepherd", {"input": Q, "label": Q}, "input", "no tag"), ("math_shepherd", changed(SHEPHERD, label=...), "label", "missing"),
    ("math_shepherd", shepherd("Add. five [+] nine [-]"), "input", "no 'Step 1:' and no '?'"),
    ("math_shepherd", shepherd(f"{Q} Step 1: a [+] [+]"), "input", "step 2 of 2 is empty"),
    ("math_shepherd", shepherd(f"{Q} [+] Step 1: a"), "input", "no step with a tag"),
    ("math_aps", {"answer": "9"}, "", "none of the fields q, question, problem, prompt in it; there are answer"),
    ("math_aps", {"an\nswer\x1b[2J": "9"}, "", r"there are an\nswer\x1b[2J"),
    ("math_aps", {"q": Q}, "", "none of the fields solution_prefix"), ("math_aps", changed(APS, states=[{"state": "a"}]), "states[0]", "none of the fields mc_value"),
    ("math_aps", changed(APS, states=[{"state": "a", "mcs": -1}]), "states[0].mcs", "-1 is no label"),
    ("math_aps", {"q": Q, "process": "a ки b ки", "label": ["+"]}, "label", "1 for 2 steps"),
    ("math_aps", {"q": Q, "steps": ["a", ""], "label": 1}, "steps", "step 2 of 2 is empty"),
    ("math_aps", {"q": Q, "reasoning_steps": {"text": Q, "mc_value": 1, "children": [{"text": "", "mc_value": 1}]}}, "reasoning_steps.children[0].text", "is empty"),
])
def test_a_broken_row_says_where(name, row, field, reason):
  with pytest.raises(fields.Bad) as caught:
    read(name, row)
  assert caught.value.args[0] == field and reason in caught.value.args[1]
