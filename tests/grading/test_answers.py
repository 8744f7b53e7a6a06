"""Where a text states its answer: exact cases, and time that grows with the text and no faster."""

import time

import pytest

from pav_jax.grading import answers

EXTRACTED = [
    # dataset, response, answer
    ("gsm8k", "She has 20+6 = <<20+6=26>>26 left.\n#### 26", "26"),
    ("gsm8k", "#### 12\nwait, no\n#### 26", "26"),
    ("gsm8k", "#### $1,234.50.", "1234.50"),
    ("gsm8k", "#### -$5", "-5"),
    ("gsm8k", "#### $-5", "-5"),
    ("gsm8k", "#### <<13*2=26>>26 eggs", "26"),
    ("gsm8k", "She has 20 + 6 = 26.\nA: 26", "26"),
    ("gsm8k", "A: 26 apples\n\nQ: What next?", "26"),
    ("gsm8k", "A: 16 - 3 = 13 eggs a day.\nIn 2 days she has 26", "26"),
    ("gsm8k", "Q: How many?\nA: Let us see. The answer is 26.", "26"),
    ("gsm8k", "The answer is 20 + 6 = 26 apples. There are 3 more.", "26"),
    ("gsm8k", "The answer is unclear. She has 26", "26"),
    ("gsm8k", r"\boxed{13} at first; the final answer is: **26**", "26"),
    ("gsm8k", r"The answer is 13, so twice as many: \boxed{26\text{ eggs}}", "26"),
    ("gsm8k", "# Answer\n\n26 eggs", "26"),
    ("gsm8k", "She sold 20-6=14 eggs, that is 14 eggs", "14"),
    ("gsm8k", "She sold 20-6", "20-6"),
    ("gsm8k", "She has 26 +", None),
    ("gsm8k", "No idea", None),
    ("gsm8k", "", None),
    ("math", r"$\boxed{1}$ and then $\boxed{\frac{1}{2}}$ as $x=3$", r"\frac{1}{2}"),
    ("math", r"\boxed{\left\{1, \{2\}\right\}}", r"\left\{1, \{2\}\right\}"),
    ("math", r"\boxed{3 \} 4}", r"3 \} 4"),
    ("math", r"\fbox{7}", "7"),
    ("math", r"is $\boxed 5$.", "5"),
    ("math", r"is $\boxed \frac{1}{2}$.", r"\frac{1}{2}"),
    ("math", r"\boxed {17}", "17"),
    ("math", r"\boxed{4}, and as a check # Answer\n5", "4"),
    ("math", "\\boxed{4}\n# Answer\n\n5", "4"),
    ("math", r"\boxed{4} then \boxed{}", None),
    ("math", r"\boxed{4} then \boxed{5", None),
    ("math", r"so it is \boxed{5", None),
    ("math", "Work.\n\n# Answer\n\n42", "42"),
    ("math", "# Answer\n\n$x = 5$\n\nwhich is odd", "$x = 5$"),
    ("math", "## Final Answer: 42", "42"),
    ("math", "# Answer\n\n12\n\n# Answer\n\n42", "42"),
    ("math", "#### 42", "42"),
    ("math", "A: 42", "42"),
    ("math", r"Final Answer: The final answer is $\frac{1}{2}$. I hope it is correct.", r"$\frac{1}{2}$"),
    ("math", "**Answer:** 3.5", "3.5"),
    ("math", "The answer is $5$ or $7$.", "$5$ or $7$"),
    ("math", "Hence $x+1=3$ and so $x=2$.", "x=2"),
    ("math", "we get 12 and then 42.", "42"),
    ("math", "we get $x =", None),
    # sentences behind a marker
    ("math", "Final Answer: The largest $n$ is 34.", "34"),
    ("math", "Final Answer: The area of the circle is $12\\pi$ square units. I hope it is correct.", r"$12\pi$ square units"),
    ("math", "The answer is 34 because 30 + 4 = 34.", "34"),
    ("math", "The final answer is $x\\in(1,2)$, where $x$ is real.", r"x\in(1,2)"),
    ("math", "The answer is Anna.", "Anna"),
    ("math", "Answer: \\( (9+1) \\)", r"\( (9+1) \)"),
    ("math", "The answer is:\n\\[ 5 \\]", r"\[ 5 \]"),
    ("math", "Final Answer: $x=3$ or $x=-3$", "$x=3$ or $x=-3$"),
    # no marker: the last formula or number, whole
    ("math", "Since $a=13$ and $b=4$, the total is 52", "52"),
    ("math", "The total is 52, since $a=13$ and $b=4$.", "$a=13$ and $b=4$"),
    ("math", r"\frac{10}{9}", r"\frac{10}{9}"),
    ("math", "x^5", "x^5"),
    ("math", r"Thus we get \frac{10}{9}.", r"\frac{10}{9}"),
    ("math", r"we get x = \frac{10}{9}", r"x = \frac{10}{9}"),
    ("math", "The solutions are $2$ and $3$.", "$2$ and $3$"),
    ("math", "There are 24 ways to do it.", "24"),
    ("gsm8k", r"so that is \frac{10}{9}", r"\frac{10}{9}"),
    ("gsm8k", "x^5", "x^5"),
    ("gsm8k", "It is 45cm long.", "45"),
    # a later box that stays open takes the one before back
    ("gsm8k", r"\boxed{9}, or rather \boxed{12", None),
    ("math", r"\boxed{9}, or rather \boxed{12", None),
    ("math", r"\boxed{9, or rather \boxed{12}", "12"),
    # numbers of GSM8K
    ("gsm8k", "#### 70 000 dollars", "70000"),
    ("gsm8k", "#### $70,000 (35%)", "70000"),
    ("gsm8k", r"#### 7\times10^4", "70000"),
    ("gsm8k", r"The answer is $7 \times 10^{4}$.", "70000"),
    ("gsm8k", "The answer is 5 = 2 + 3", "5"),
    ("gsm8k", "The answer is $5 = 2 + 3$.", "5"),
    ("gsm8k", r"\boxed{x = 26}", "26"),
    ("gsm8k", r"\boxed{26\text{ eggs}}", "26"),
    ("gsm8k", r"\boxed{\$1{,}234}", "1234"),
    ("gsm8k", r"\boxed{2\sqrt{3}}", r"2\sqrt{3}"),
    ("gsm8k", r"The answer is $\frac{1}{2}$", r"\frac{1}{2}"),
    ("gsm8k", "The answer is $18 per day", "18"),
    ("gsm8k", "The answer is €45.", "45"),
    ("gsm8k", "It costs $5 and $6 = $11", "11"),
    ("gsm8k", "Answer: 3/4", "3/4"),
    ("gsm8k", "Eggs:3+4=7\nTotal:7+20=27 eggs", "27"),
    ("gsm8k", "The answer is 120/24 = 5 hours to read 120 pages.", "5"),
    ("gsm8k", "The answer is 33, because there is 1 in each of 33.", "33"),
    ("gsm8k", "The answer is $6, as this is cheaper than the $7 price.", "6"),
    ("gsm8k", "The answer is 100/5 = 5A/5 or 20 = A.", "20"),
    ("gsm8k", "The answer is 50%.", "50%"),
    ("gsm8k", "The answer is 50 percent of the class", "50%"),
    ("gsm8k", "#### 35% of 200", "35"),
    ("gsm8k", "#### 5:00", "5:00"),
    ("gsm8k", "The clock says 5:00 pm.", "5:00"),
    ("gsm8k", "At 5:00 she has 3 left.", "3"),
    ("gsm8k", "#### 18 18", "18 18"),
    ("gsm8k", "#### 18, 20", "18, 20"),
    ("gsm8k", "#### $18 or $20", "$18 or $20"),
    ("gsm8k", "Therefore, there are 2 $10 bills.", "2"),
    ("gsm8k", "The answer is 18, 9 times 2", "18"),
    ("gsm8k", "#### 1.8 thousand dollars", "1800"),
    ("gsm8k", "#### 2 hundred thousand", "200000"),
    ("gsm8k", "#### 2 dozen", "2"),
    ("arithmetic", "3+4=7\n#### 7", "7"),
    ("arithmetic", "#### 7\n#### 8\n3", "8"),
    ("arithmetic", "3+4=7", None),
    ("arithmetic", "####\n7", None),
]


DENIED = [
    # response, what it states in either data set
    ("The answer is not 5.", None), ("The answer isn't 5.", None), ("The answer is not $5$.", None), ("The answer is definitely not 5.", None),
    ("The answer is not equal to 5", None), ("The answer is neither 5 nor 6.", None), ("#### not 5", None), ("So x is not 5", None),
    ("So it cannot be 5.", None), ("5 is not the answer.", None), ("$5$ is not the correct answer.", None), ("Thus 5 is wrong.", None),
    ("It is not true that the answer is 5.", None), ("A wrong answer is 5.", None), ("The answer is 5, which is wrong.", None),
    ("The answer is 5. No wait, the answer is not 5.", None), (r"The answer is not \boxed{5}.", None), (r"Not \boxed{5}, then.", None),
    # 'not' that denies something else
    ("The answer is not 5 but 7", "7"), ("The answer is not 5; rather 7.", "7"), ("The answer is not 5, it is 7.", "7"),
    ("The answer is 7. The answer is not 5.", "7"), ("The answer is 7, not 5.", "7"), ("It is 7, not 5.", "7"), ("It is 7 rather than 5", "7"),
    (r"The answer is \boxed{7}, not \boxed{5}.", "7"), (r"$\boxed{5}$? Not $\boxed{5}$ but $\boxed{7}$", "7"),
    ("The answer is not an integer: it is 7/2", "7/2"), ("It is not hard to see that the answer is 7.", "7"),
    ("The number of those who did not pass is 7.", "7"), (r"So $x$ cannot be $\boxed{7}$.", "7"),
]  # fmt: skip


@pytest.mark.parametrize("dataset", ["math", "gsm8k"])
@pytest.mark.parametrize("response, answer", DENIED)
def test_what_is_denied_is_no_answer(dataset, response, answer):
  assert answers.extract_answer(response, dataset) == answer


@pytest.mark.parametrize("dataset, response, answer", EXTRACTED)
def test_extracts_the_stated_answer(dataset, response, answer):
  assert answers.extract_answer(response, dataset) == answer


CUT_OFF = [
    # dataset, response, answer if it ended, answer if it was cut off
    ("math", "we get 12 and then 42", "42", None),
    ("math", "Hence $x+1=3$ and so $x=2$.", "x=2", None),
    ("math", r"The answer is $\frac{1}{2}$.", r"$\frac{1}{2}$", None),
    ("math", "# Answer\n\n42", "42", None),
    ("math", r"\boxed{4} and so on, up to 5", "4", "4"),
    ("math", r"it is \boxed{5", None, None),
    ("math", "#### 42", "42", "42"),
    ("gsm8k", "She has 20+6 = 26", "26", None),
    ("gsm8k", "A: 16 - 3", "16 - 3", None),
    ("gsm8k", "The answer is 26.", "26", None),
    ("gsm8k", "She has 26.\n#### 26", "26", "26"),
    ("gsm8k", r"She has \boxed{26} eggs and 3", "26", "26"),
    ("arithmetic", "3+4=7\n#### 7", "7", "7"),
    ("arithmetic", "3+4=7", None, None),
]


@pytest.mark.parametrize("dataset, response, ended, cut_off", CUT_OFF)
def test_without_an_end_only_a_mark_states_an_answer(dataset, response, ended, cut_off):
  assert answers.extract_answer(response, dataset) == ended
  assert answers.extract_answer(response, dataset, ended=False) == cut_off


def test_an_unknown_data_set_is_an_error():
  with pytest.raises(ValueError, match="maths"):
    answers.extract_answer("5", "maths")


REFERENCES = [
    # dataset, reference, answer
    ("gsm8k", "So 2 + 3 = <<2+3=5>>5.\n#### 5", "5"),
    ("gsm8k", "1,080", "1080"), ("gsm8k", "70 000 dollars", "70000"), ("gsm8k", "$70,000 (35%)", "70000"),
    ("gsm8k", r"7\times10^4", "70000"),
    ("gsm8k", "5 = 2 + 3", "5"), ("gsm8k", r"\frac{1}{2}", r"\frac{1}{2}"),
    ("gsm8k", "He pays 3 for 4 of them, 12 in all.", None), ("gsm8k", "12 and 13", None), ("gsm8k", "many", None),
    ("math", r"So $\boxed{5}$.", "5"), ("math", " 5 ", "5"), ("math", r"$\boxed{4}$ and $\boxed{9}$.", "4,9"),
]  # fmt: skip


@pytest.mark.parametrize("dataset, reference, answer", REFERENCES)
def test_a_reference_states_its_answer(dataset, reference, answer):
  assert answers.reference_answer(reference, dataset) == answer


PIECES = (r"\boxed{", r"\boxed ", r"\boxed{1} and ", r"\boxed{1}, ", "{", "# Answer\n", "A:\n", "$", r"\\", "<<", "1,",
"$1$ and ", r"\(", r"\[1", "1 000 ", "= ", "is ",
          "The answer is not 1. ", "not ", r"not \boxed{1} ", "1, not ", "18 18 ", "1 thousand ", "5:00 ", "rather than 1 ",
          "The answer is 1 ", "(", r"\text{", "**", "a ", "-", " ", "Answer: $")  # fmt: skip


@pytest.mark.parametrize("dataset", ["math", "gsm8k"])
@pytest.mark.parametrize("piece", PIECES)
def test_extraction_takes_linear_time(piece, dataset):
  def seconds(text):
    start = time.process_time()
    answers.extract_answer(text, dataset)
    answers.reference_answer(text, dataset)
    return time.process_time() - start

  small, large = (min(seconds(piece * n) for _ in range(3)) for n in (2_000, 16_000))
  # Eight times the text; quadratic time would be sixty-four times.
  assert large < 25 * small + 0.02
