"""What several boxes state together."""

import time

import pytest

from pav_jax.grading import boxes

STATED = [
    # text, what it states
    (r"So $\boxed{4}$.", "4"),
    (r"$\boxed{4}$ and $\boxed{9}$.", "4,9"),
    (r"$\boxed{4}$, $\boxed{9}$ and $\boxed{2}$", "4,9,2"),
    (r"$x = \boxed{4}$ or $x = \boxed{9}$.", r"4 \text{ or } 9"),
    (r"\[\boxed{4} \text{ and } \boxed{9}.\]", "4,9"),
    (r"$f(x) = \boxed{2x}$ or $g(x) = \boxed{-2x}$", r"2x \text{ or } -2x"),
    ("a &= \\boxed{4}, \\\\\nb + c &= 3 + 6 = \\boxed{9}.", "4,9"),
    (r"For $r = 1$ we get $b = \boxed{4}.$ If $r = -1$, then $b = \boxed{9}$.", "4,9"),
    (r"One angle is $\boxed{30^\circ}$. Another angle is $\boxed{60^\circ}$.", r"30^\circ,60^\circ"),
    # a correction, a consequence, another way: the last one counts
    (r"It is $\boxed{4}$. Wait, I forgot a factor: $\boxed{9}$.", "9"),
    (r"$x = \boxed{4}$, so $x + 5 = \boxed{9}$.", "9"),
    (r"$\boxed{4}$. No, actually $\boxed{9}$.", "9"),
    (r"$\boxed{4}$ and so $\boxed{9}$", "9"),
    (r"$\boxed{4}$. Alternatively, we could see that it is $\boxed{9}$.", "9"),
    (r"$\boxed{4}$. Another way to see it gives $\boxed{9}$.", "9"),
    (r"$\frac{18}{2} = \boxed{\frac{18}{2}} = \boxed{9}$", "9"),
    (r"$\boxed{4}$" + " and on it goes" * 50 + r" and $\boxed{9}$", "9"),
    # the same again is one answer, with a base and without as well
    (r"$\boxed{4}$ and $\boxed{4}$", "4"),
    (r"$\boxed{28}$ or $\boxed{28_9}$", "28_9"),
    # either is accepted
    (r"$\boxed{(0,0)}$ and $\boxed{(1,1)}$. (Either point is an acceptable answer.)", r"(0,0) \text{or else} (1,1)"),
    (r"is $\boxed{-3}$. Note: $\boxed{3}$ is also accepted.", r"-3 \text{or else} 3"),
    # behind 'not' stands no answer
    (r"It is $\boxed{4}$, not $\boxed{9}$.", "4"),
    (r"It is not $\boxed{4}$ but $\boxed{9}$.", "9"),
    (r"It is not $\boxed{4}$.", None),
    (r"So $x$ can not be $\boxed{4}$.", "4"),
    # what is open, empty, nested, or bare
    (r"\boxed{4} then \boxed{5", None),
    (r"\boxed{4, then \boxed{5}", "5"),
    (r"\boxed{4} then \boxed{}", ""),
    (r"fill in \boxed{\phantom{4}}: it is \boxed{5}", "5"),
    (r"\boxed{1 + \boxed{2}}", r"1 + \boxed{2}"),
    (r"\boxed{3 \} 4}", r"3 \} 4"),
    (r"is $\boxed 5$.", "5"),
    (r"$\boxed\pi$", r"\pi"),
    (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
    (r"\boxed{never {closed}", None),
    (r"\boxed", ""),
    ("no box", None),
]


@pytest.mark.parametrize("text, stated", STATED)
def test_boxes_state(text, stated):
  found = boxes.boxed(text)
  assert (None if found.cut_off else found.content) == stated


def test_a_closed_box_does_not_outlive_an_open_one():
  assert boxes.boxed(r"\boxed{4} then \boxed{5").cut_off
  assert not boxes.boxed(r"\boxed{4 then \boxed{5}").cut_off


def test_boxes_take_linear_time():
  begin = time.process_time()
  for text in (r"\boxed{" + "{" * 1_000_000, r"\boxed{" * 200_000, r"\boxed{1} and " * 100_000, r"\boxed 1 " * 100_000):
    boxes.boxed(text)
  assert time.process_time() - begin < 8
