"""Right and wrong answers, one line each: what a student may write, and what must not pass."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_verl.eval.benchmarks.exact_match import is_correct

CHOICE = "(B) quartz"

RIGHT = [
    # the letter
    ("B", CHOICE),
    ("(B)", CHOICE),
    ("b.", CHOICE),
    ("B) quartz", CHOICE),
    ("(B) quartz, because it is hard.", CHOICE),
    ("B. It is the only mineral.", CHOICE),
    ("B - quartz", CHOICE),
    ("The answer is B.", CHOICE),
    ("The correct answer is option B.", CHOICE),
    ("Option B", CHOICE),
    ("The answer is Option B.", CHOICE),
    ("It is hard.\n\n**Final Answer**: B", CHOICE),
    ("Answer: (B)", CHOICE),
    ("The answer is: **B**", CHOICE),
    ("Bread is baked, so (A) is out.\nThe answer is (B).", CHOICE),
    ("First I thought of bread.\n\nB", CHOICE),
    ("$\\boxed{B}$", CHOICE),
    ("So it is \\boxed{\\text{B}}.", CHOICE),
    ("<thinking>A or B?</thinking><answer>B</answer>", CHOICE),
    ("<thinking>A</thinking>\n<answer>It is a mineral. The answer is B.</answer>", CHOICE),
    # the text
    ("quartz", CHOICE),
    ("Quartz!", CHOICE),
    ("The answer is quartz.", CHOICE),
    ("the quartz", CHOICE),
    ("Vitamin C", "(A) vitamin C"),
    ("-3 \u00b0C", "(D) \u22123 \u00b0C"),
    # numbers
    ("12", "12"),
    ("12.0", "12"),
    ("12 cm", "12"),
    ("x = 12", "12"),
    ("So 3 + 9 = 12", "12"),
    ("Add the sides.\n3 + 9 = 12.", "12"),
    ("The answer is 12. It follows from the picture.", "12"),
    ("1,234.5", "1234.5"),
    ("**Answer**: 12 cm", "12"),
    ("1/2", "0.5"),
    ("\\frac{1}{2}", "0.5"),
    ("\\boxed{\\dfrac { 1 } { 2 }}", "1/2"),
    ("\u00bd", "0.5"),
    ("1 1/2", "1\u00bd"),
    ("45\u00b0", "45"),
    ("45^\\circ", "45 degrees"),
    ("$12", "12"),
    ("50 %", "50\\%"),
    ("3 square meters", "3 square meters"),
    ("4 m/s", "4 m/s"),
    ("9 cm\u00b2", "9 cm^2"),
    # LaTeX and words
    ("2\\sqrt{221}", "2 \\sqrt { 221 }"),
    ("\\boxed{2\\sqrt{221}}", "2 \\sqrt { 221 }"),
    ("\u221a3", "\\sqrt{3}"),
    ("A red box.", "red box"),
    ("The answer is Paris", "paris"),
    (">", ">"),
]

WRONG = [
    ("", CHOICE),
    ("A", CHOICE),
    ("(A) quartz", CHOICE),
    ("A", "(B) A"),
    ("The answer is a.", "(B) A"),
    ("A or B", CHOICE),
    ("(A) or (B)", CHOICE),
    ("A, B", CHOICE),
    ("Option A", CHOICE),
    ("Option B or Option A", CHOICE),
    ("(B) or Option A.", CHOICE),
    ("B, A", CHOICE),
    ("B or A.", CHOICE),
    ("Not B", CHOICE),
    ("The answer is not (B).", CHOICE),
    ("The answer isn't (B).", CHOICE),
    ("The answer is A. Others say the answer is C.", CHOICE),
    ("The answer is B.\nWait: the answer is A.", CHOICE),
    ("\\boxed{B} or rather \\boxed{A}", CHOICE),
    ("Bread is not quartz", CHOICE),
    ("A. quartz", CHOICE),
    ("The answer is (A), quartz.", CHOICE),
    ("It is bread, not quartz.", CHOICE),
    ("A dog is shown.", "(A) bread"),
    ("<thinking>B</thinking><answer>A</answer>", CHOICE),
    ("B" * 3, CHOICE),
    ("3 \u00b0C", "(D) \u22123 \u00b0C"),
    ("-12", "12"),
    ("12 or 13", "12"),
    ("12 not", "12"),
    ("12.1", "12"),
    ("5.5", "1\u00bd"),
    ("1\u00bd", "11/2"),
    ("112", "12"),
    ("0.333", "1/3"),
    ("12", "12 km"),
    ("12 m", "12 km"),
    ("0.5", "50%"),
    ("1/0", "1"),
    ("I cannot tell.", "12"),
    ("+", "-"),
    ("2\\sqrt{222}", "2\\sqrt{221}"),
    ("Not Paris", "Paris"),
    ("anything", ""),
    ("", ""),
]


@pytest.mark.parametrize(("answer", "reference"), RIGHT)
def test_right(answer: str, reference: str) -> None:
    assert is_correct(answer, reference)


@pytest.mark.parametrize(("answer", "reference"), WRONG)
def test_wrong(answer: str, reference: str) -> None:
    assert not is_correct(answer, reference)


@given(st.text(), st.text())
def test_it_never_raises(answer: str, reference: str) -> None:
    assert is_correct(answer, reference) in (True, False)


@given(
    st.text("0123456789.,-+/=()ABab \\{}frac\u0661\u00b2", max_size=30), st.text("0123456789.,-+/= \u0661", max_size=30)
)
def test_it_never_raises_on_what_looks_like_numbers(answer: str, reference: str) -> None:
    assert is_correct(answer, reference) in (True, False)


@given(st.fractions())
def test_a_fraction_is_itself_and_no_other(value: object) -> None:
    assert is_correct(f"The answer is {value}.", str(value))
    assert not is_correct(f"The answer is {value}1.", str(value))


@pytest.mark.parametrize("piece", [" ", "answer is ", "\\boxed{", "1 ", "1,", "(B)", "\\frac{", "{ ", "=", "a ", "9"])
def test_a_flood_takes_no_time(piece: str) -> None:
    start = time.monotonic()
    is_correct(piece * 100_000, "(B) quartz")
    is_correct(piece * 100_000, "12")
    assert time.monotonic() - start < 5
