import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drp_hf.answer_text import MAX_ANSWER
from drp_hf.answers import answers_match, extract_answer, parses, read_number, stated_answer, states_answer
from drp_hf.corpus.reading import read_problems
from drp_hf.records import final_response, render_output


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{12} no, \(\boxed{\frac{1}{4}}\).", r"\frac{1}{4}"),
        (r"\boxed{\left\{ 1, 2 \right\}}", r"\left\{ 1, 2 \right\}"),
        (r"\boxed{7} and an unbalanced \boxed{8", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        ("The answer is 42.", "42"),
        ("The final answer is: **$1,250.50**.", "$1,250.50"),
        ("The answer is 3.5 hours, as 7 / 2 = 3.5.", "3.5"),
        ("**Final Answer**\nJames runs 540 meters.", "540"),
        ("**Answer:** Gerald has \\$50 left.", "\\$50"),
        ("Final Answer:\n\n\\[\nx = 5\n\\]", "x = 5"),
        ("The answer is p - q.", "p - q"),
        ("The answer is 42!", "42"),
        (r"\boxed{5!}", "5!"),
        ("Therefore, the answer is Evelyn.", "Evelyn"),
        ("3 * 4 = 12\n#### 12", "12"),
        ("#### Step 2\nNow 3 * 4 gives **12 apples**", "12"),
        ("So 3 sprints of 60 meters: 180 meters.", "180"),
        ("So the probability is 3/4.", "3/4"),
        ("So she needs 1 1/2.", "1 1/2"),
        ("By 16:00 2/3 of the remaining people had voted.", "2/3"),
        ("So the probability is 1 / 29,322,216.", "1 / 29,322,216"),
        (r"So it is 1/29,\!322,\!216.", r"1/29,\!322,\!216"),
        ("It fell to -10 degrees", "-10"),
        ("from 20-10", "10"),
        (r"Thus \(x = \boxed{3}\) or \(x = \boxed{-2}\).", "3, -2"),
        (r"Thus \boxed{86} glasses and \boxed{42} plates.", "86, 42"),
        (r"So \boxed{12}. And then \boxed{5}.", "5"),
        (r"\boxed{5} and the final answer is \boxed{5}", "5"),
        (r"$\boxed{3}, \boxed{4}$", "3, 4"),
        (r"$x_1 = \boxed{3}$, $x_2 = \boxed{4}$", "3, 4"),
        (r"$x=\boxed{3}$ or $x=\boxed{4}$", "3, 4"),
        (r"$\boxed{3}$, $\boxed{3}$", "3"),
        (r"\boxed{3}, so in all \boxed{4}", "4"),
        ("The answer is option B.", "option B"),
        ("The correct answer is **B) 12**.", "B) 12"),
        ("The correct option is (C).", "(C)"),
        ("The answer is $\\left[0,\\infty\\right)$.", "\\left[0,\\infty\\right)"),
        ("The answer is [1, 2) ∪ (3, 4].", "[1, 2) ∪ (3, 4]"),
        ("So the answer is x = 5 or x = -3.", "x = 5 or x = -3"),
        ("The answer is 3:30 PM.", "3:30 PM"),
        ("The answer is 3:30 PM (15:30).", "15:30"),
        ("**Answer:** 15:30 (3:30 PM).", "3:30 PM"),
        ("So the train arrives at **3:30 PM (15:30)**.", "15:30"),
        ("So it arrives at 3:30 PM.", "3:30 PM"),
        ("The answer is 3:30 PM, 2 hours later.", "3:30 PM"),
        ("Numbers divisible by 3:17.", "17"),
        ("The answer is 2 hours and 30 minutes.", "2 hours and 30 minutes"),
        ("The answer is 5 feet 6 inches.", "5 feet 6 inches"),
        ("The answer is 1 1/2 cups.", "1 1/2 cups"),
        ("The answer is 1, 2 and 3.", "1, 2 and 3"),
        ("The answer is yes, because 7 is prime.", "yes"),
        ("The answer is Evelyn, who ran 5 miles.", "Evelyn"),
        ("The answer is 7 apples, 3 more than 4.", "7"),
        ("The answer is 540 meters in 7 days.", "540"),
        ("The answer is 20% of 50, which is 10.", "10"),
        ("The answer is 12 + 30 = 42 apples.", "42"),
        ("In total, the answer is in all, 540 meters.", "540"),
        ("The answer is 1.5 million dollars.", "1.5 million dollars"),
        (r"The answer is 25\pi square units.", r"25\pi"),
        (r"The answer is 2\sqrt{3} cm.", r"2\sqrt{3}"),
        ("The answer is x^2 + 3x - 4 dollars.", "x^2 + 3x - 4"),
        ("The answer is 2^3 = 8 dollars.", "8"),
        ("The answer is a 5 mile walk.", "5"),
        ("No numbers here.", None),
        ("", None),
    ],
)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is $2$ or $3$.", "2 or 3"),
        (r"The answer is \(x = 2\) or \(x = 3\).", "x = 2 or x = 3"),
        ("The final answer is $x = 2$ and $y = 3$.", "x = 2 and y = 3"),
        ("The answer is $2$, $3$ and $5$.", "2, 3 and 5"),
        ("The answer is $2$ or $3$, depending on the sign.", "2 or 3"),
        (r"The answer is $\sqrt{2}$ or $-\sqrt{2}$.", r"\sqrt{2} or -\sqrt{2}"),
        ("The answer is **2** or **3**.", "2 or 3"),
        ("The answer is $3$ apples and $4$ pears.", "3 apples and 4 pears"),
        ("The answer is $3$ hours and $20$ minutes.", "3 hours and 20 minutes"),
        ("The answer is $5$ million.", "5 million"),
        ("The answer is $10$ divided by $2$, which is $5$.", "5"),
        ("The answer is $x$ = 5.", "x = 5"),
        # What only explains the first one adds nothing to it.
        ("The answer is $5$ dollars.", "5"),
        (r"The answer is $\frac12$ or $0.5$.", r"\frac12"),
        ("The answer is $5$ because $2+3=5$.", "5"),
        (r"The answer is $12$, since $3 \cdot 4 = 12$ and 5 > 2.", "12"),
        ("The answer is $5$, and $6$ is too many.", "5"),
        ("The answer is $x = 5$, where $y = 3$.", "x = 5"),
        ("The answer is $18$ dollars per day for $5$ days.", "18"),
        ("The answer is $3$ of the $12$ apples.", "3"),
        ("The answer is $7$ apples, $3$ more than $4$.", "7"),
        ("The answer is **18** dollars per day for 5 days.", "18"),
        ("The answer is: **18** eggs, 3 more than 15.", "18"),
        ("The answer is **18** dollars on **Monday**.", "18"),
        ("The answer is **18.** It takes 5 days.", "18"),
        ("The answer is **Evelyn**, who ran 5 miles.", "Evelyn"),
        ("The answer is **B**, because A has 5 sides.", "B"),
    ],
)
def test_a_phrase_that_begins_with_a_formula_or_bold_words(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize("gold", ["$2$ or $3$", "$x = 2$ and $y = 3$", r"\(2\) or \(3\)", r"$\{1,2\}$ and $\{3\}$"])
def test_final_responses_give_several_formulas_back(gold):
    assert answers_match(gold, extract_answer(final_response(gold))).correct
    assert not answers_match(gold, "2").correct


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("答案是14。", "14"),
        ("所以最终答案为42元。", "42"),
        ("答案：14", "14"),
        ("**答案：** 14个苹果", "14"),
        ("**答案：14**", "14"),
        ("**答案**\n\n14", "14"),
        (r"答案：\boxed{14}", "14"),
        ("答案是 $2$ 或 $3$。", "2 或 3"),
        ("答案是2个或3个。", "2个或3个"),
        ("答案是18美元，每天5个。", "18"),
        ("答案是14，因为3*4+2=14。", "14"),
        ("答案是14。这个答案是正确的。", "14"),
        ("一共有14个苹果。答案是否正确？", "14"),
        ("汤姆一共有14个苹果。", "14"),
        ("所以x等于-5。", "-5"),
    ],
)
def test_chinese_answers(text, answer):
    assert extract_answer(text) == answer


def test_only_the_response_of_a_whole_output_counts():
    assert extract_answer(render_output("It is \\boxed{3}.", "The answer is 4.")) == "4"
    assert extract_answer("It is 3.\n</think>\n\nThe answer is 4.") == "4"
    assert extract_answer("<think>\nIt is \\boxed{3}, but") is None


def test_stated_answer_needs_an_express_form():
    assert stated_answer("That makes 540 meters.") is None
    assert stated_answer("So the answer is 540 meters.") == "540"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 42.\n\nI have verified that this final answer is correct.", "42"),
        ("The answer is 42.\n\nThe answer is correct, as 6 * 7 = 42 and 7 * 6 = 42, too.", "42"),
        ("The answer is 18 dollars.\n\nThe final answer has been double-checked.", "18"),
        ("The answer is 3.\n\nLet me know if this answer is helpful!", "3"),
        ("The final answer is 3.\n\n(The answer is given in hours.)", "3"),
        ("The answer is 3.14.\n\nThe answer is rounded to 2 decimal places.", "3.14"),
        ("**Final Answer:** 42\n\nThis answer is reasonable because 42 is between 40 and 50.", "42"),
        ("**Answer:** 42\n\nThe answer is an integer.", "42"),
        ("The answer is 7.\nWait, the answer is", "7"),
        ("The answer is Tuesday.\n\nI verified that this answer is correct.", "Tuesday"),
        ("The correct option is (B).\n\nThis final answer makes sense.", "(B)"),
    ],
)
def test_a_remark_on_an_answer_does_not_replace_it(text, answer):
    assert stated_answer(text) == answer
    assert states_answer(text, answer)


@pytest.mark.parametrize(
    ("text", "golds"),
    [
        ("The correct option is B: 12 apples", ["B", "12"]),
        ("The answer is (B) 12 apples.", ["B", "12"]),
        ("The answer is B) 12 apples", ["B", "12"]),
        ("**B. 12 apples**", ["B", "12"]),
        ("The answer is **B**: 12 apples", ["B", "12"]),
        ("The answer is (B) $\\frac{1}{2}$ apples.", ["B", "0.5"]),
        ("The answer is (B) she sells 12 apples in all.", ["B", "12"]),
        ("The answer is (B) because it has 5 sides.", ["B"]),
        ("The answer is (A) 3 and (C) 5.", ["(A) and (C)"]),
        ("The answer is 3 hours (180 minutes).", ["3", "180", "3 hours"]),
        ("The answer is 120 minutes (that is, 2 hours).", ["120", "2"]),
        ("**Final Answer**\nShe works 1.5 hours (1.5 * 60 = 90 minutes).", ["1.5", "90"]),
        ("The answer is 5 feet 6 inches (66 inches).", ["66", "5.5"]),
        ("The answer is 18 dollars (9 eggs at 2 dollars each).", ["18"]),
        ("The answer is 9 × 2 = 18 dollars (9 eggs at 2 dollars each).", ["18"]),
        ("**Answer:** She makes a total of **$18** (9 eggs at **$2** each).", ["18"]),
        ("The answer is **18 dollars (9 eggs at 2 dollars each)**.", ["18"]),
        ("The answer is 5 miles (8.05 km).", ["5"]),
        ("The answer is 3 (mod 7).", ["3"]),
        ("The answer is half of 36 apples (18).", ["18"]),
        ("The answer is 5 dozen eggs (60).", ["60"]),
        ("The answer is 12 times 3 (36).", ["36"]),
        ("The answer is 2 miles each way (which makes 4).", ["4"]),
        ("The answer is 2 (x + 1).", ["2x + 2"]),
        ("The answer is $(1, 2)$ (in quadrant 1).", ["(1, 2)"]),
    ],
)
def test_an_option_or_a_value_is_not_what_explains_it(text, golds):
    wrongly = [gold for gold in golds if not answers_match(gold, extract_answer(text)).correct]
    assert not wrongly, extract_answer(text)
    assert not answers_match("2.5", extract_answer(text)).correct


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is correct.", "correct"),
        ("The answer is Tuesday.", "Tuesday"),
        ("It can be 5 or 6. The answer is valid or invalid. So the answer is invalid.", "invalid"),
        ("At first the answer is 5. No, the answer is Evelyn.", "Evelyn"),
        ("At first the answer is 5. No, the answer is even.", "even"),
        ("The answer is 3. No, the answer is clear: 42.", "42"),
        ("The answer is 3. No, the answer is given by 3 * 4 = 12.", "12"),
        ("The answer is 4283. The answer is rounded to the nearest hundred, 4300.", "4300"),
        ("The answer is 5. Now the answer is in all twelve.", "in all twelve"),
        ("The answer is 5. This answer is 6.", "6"),
    ],
)
def test_words_may_be_the_answer_and_replace_another(text, answer):
    assert stated_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So she earns **$18** a day at the **farmers' market**.", "$18"),
        ("He earns **$18** per **day**.", "$18"),
        ("Total: **$18**\n\n**Hope this helps!**", "$18"),
        ("Total: 18\n\n**Hope this helps!**", "18"),
        ("The total is **42**. **Verified!**", "42"),
        ("The total is 42. This answer is correct.", "42"),
        ("Carla ran **5 miles**, so the fastest is **Evelyn**.", "Evelyn"),
        ("After **3 hours** she arrives in **Paris**.", "Paris"),
        ("After **3 miles** she turns **right**.", "right"),
        ("**7** divided by 2 leaves **1**, so it is **odd**.", "odd"),
        ("She sells them at the **market**.", "market"),
        ("**Correct**", "Correct"),
        ("It was **Hope**.", "Hope"),
    ],
)
def test_bold_words_that_only_stress_something_do_not_replace_a_number(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("ending", "gold", "states"),
    [
        ("So 540 meters.", "540", True),
        ("So they read six books.", "6", True),
        ("So the answer is 540 meters in 7 days.", "540", True),
        ("3 * 180 = 540. So the answer is 50.", "540", False),
        (r"That is 540. \boxed{50}", "540", False),
        ("So 5400 meters.", "540", False),
        (r"Thus \(\frac{14}{3}\) remains.", r"\frac{14}{3}", True),
        ("which is 14/3", r"\frac{14}{3}", True),
        ("So the student is Evelyn.", r"\text{Evelyn}", True),
        (r"Hence \(d = 3\sqrt{13}\).", r"3\sqrt{13}", True),
        ("So they are done.", "540", False),
        ("So the probability is 3/4.", "3/4", True),
        ("So the probability is 3/4.", "4", False),
        ("So she needs 1 1/2.", "1.5", True),
        ("So she needs 1 1/2.", "2", False),
        (r"So it is \frac{1}{29,\!322,\!216}.", r"\dfrac{1}{29,\!322,\!216}", True),
        ("所以答案是42。", "42", True),
        ("一共142个。", "42", False),
        ("So x14.", "14", False),
    ],
)
def test_states_answer(ending, gold, states):
    assert states_answer(ending, gold) is states


@pytest.mark.parametrize("gold", ["", "  ", "???", "\\frac{1}{", "{", "x" * 2000, "\\begin{", "."])
def test_gold_that_does_not_parse(gold):
    assert not parses(gold)


@pytest.mark.parametrize(
    "gold",
    [
        "540",
        "-10",
        "p - q",
        r"\text{Evelyn}",
        "(3,4]",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        "José",
        "日曜日",
        "5€",
    ],
)
def test_gold_that_parses(gold):
    assert parses(gold)


@pytest.mark.parametrize(
    "piece",
    [
        "this answer is correct. ",
        "**at the **5** ",
        "the answer is **5",
        "the answer is $2$ or ",
        "答案：",
        "the answer is 1 a (1) ",
        "\\boxed{",
        "\\boxed{5}, " + "\\)" * 30 + "x",
        "{",
        "**",
        "$",
        "the answer is ",
        "####",
        "1,",
        "1 ",
        ".",
        "\\(",
        "<think>",
        "1/",
        "answer: \n",
        "-",
    ],
)
def test_extraction_is_linear_on_hostile_texts(piece):
    text = piece * (600_000 // len(piece))
    assert extract_answer(text) is None or len(extract_answer(text)) <= MAX_ANSWER
    assert states_answer(text[-2000:], "540") is False


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12))
def test_read_number_reads_every_writing_of_an_integer(n):
    for written in (str(n), f"{n:,}", f"{n}.0", f"\\${n}" if n >= 0 else f"-\\${-n}", f"{n} apples", f"{n}/1"):
        assert read_number(written).value == n, written


@settings(deadline=None)
@given(st.decimals(0, 10**6, places=3, allow_nan=False))
def test_read_number_reads_decimals_exactly(d):
    assert read_number(f"{d}%").value == read_number(str(d)).value
    assert float(read_number(f"{d:,}").value) == float(d)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_nothing_breaks_the_readers(text):
    extract_answer(text)
    stated_answer(text)
    read_number(text)


@pytest.mark.parametrize("name", ["math500_test", "gsm8k_test", "svamp", "aime24_test", "amc23_test"])
def test_final_responses_give_the_gold_answer_back(shared_data, name):
    golds = {problem.answer for problem in read_problems(shared_data / "problems" / f"{name}.jsonl")}
    for gold in sorted(golds):
        for text in (final_response(gold), f"Thus \\(\\boxed{{{gold}}}\\)."):
            assert answers_match(gold, extract_answer(text)).correct, (gold, extract_answer(text))
