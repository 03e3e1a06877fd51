import re
from collections import Counter

import pytest

from drp_hf.errors import DRPError
from drp_hf.problems import FAMILIES, OPERATIONS, generate, split_of
from drp_hf.unseen_problems import UNSEEN_FAMILIES
from drp_hf.verbose_traces import inverse, verbose_trace


@pytest.fixture(scope="module")
def problems():
    return list(generate(1600, seed=5))


@pytest.fixture(scope="module")
def unseen():
    return list(generate(800, seed=5, families=UNSEEN_FAMILIES))


def test_same_seed_same_problems_and_a_smaller_count_is_a_prefix():
    assert list(generate(50, seed=3)) == list(generate(80, seed=3))[:50]
    assert list(generate(50, seed=3)) != list(generate(50, seed=4))


def test_splits_share_no_question_whatever_the_seeds(problems):
    train = {problem.question for problem in problems}
    test = {problem.question for seed in range(3) for problem in generate(300, "test", seed)}
    assert not train & test
    assert {split_of(question) for question in test} == {"test"}


def test_at_least_twelve_families_in_equal_shares(problems):
    counts = Counter(problem.family for problem in problems)
    assert len(counts) == len(FAMILIES) >= 12
    assert max(counts.values()) - min(counts.values()) <= len(problems) / len(FAMILIES) * 0.1


def test_two_to_five_steps_all_operations_fractions_and_percentages(problems):
    assert {len(problem.computations) for problem in problems} == {2, 3, 4, 5}
    assert {step.operation for problem in problems for step in problem.computations} == set(OPERATIONS)
    assert any("1/4" in problem.question for problem in problems)
    assert any("25%" in problem.question for problem in problems)


def test_no_question_twice(problems):
    assert len({problem.question for problem in problems}) == len(problems)


def test_unseen_families_are_others_and_as_hard(problems, unseen):
    assert not {problem.family for problem in problems} & {problem.family for problem in unseen}
    counts = Counter(problem.family for problem in unseen)
    assert set(counts.values()) == {len(unseen) // len(UNSEEN_FAMILIES)}
    largest = max(step.value for problem in problems for step in problem.computations)
    assert max(step.value for problem in unseen for step in problem.computations) <= largest
    assert {len(problem.computations) for problem in unseen} == {3, 4}


def test_computations_are_exact_positive_and_use_only_what_is_known(problems, unseen):
    for problem in problems + unseen:
        known = {int(number) for number in re.findall(r"\d+", problem.question)} | {2, 3, 4, 100}
        for step in problem.computations:
            known |= {int(number) for number in re.findall(r"\d+", step.lead)}
            assert step.left in known and step.right in known, (problem.question, step)
            assert step.value > 0
            if step.operation == "/":
                assert step.left % step.right == 0
            known.add(step.value)


def test_every_equation_of_a_verbose_trace_is_true(problems):
    for problem in problems[:400]:
        trace = verbose_trace(problem)
        for left, value in re.findall(r"(\d+(?: [-+×/] \d+)+) = (\d+)", trace.reasoning):
            assert eval(left.replace("×", "*")) == int(value), (left, value)


def test_a_verbose_trace_restates_reflects_and_ends_with_the_answer(problems):
    reflective = re.compile(r"wait|hmm|double-check|verify|another way|alternatively|hold on", re.I)
    traces = [verbose_trace(problem) for problem in problems[:400]]
    assert all(
        fact in trace.reasoning for problem, trace in zip(problems, traces, strict=False) for fact in problem.facts
    )
    assert all(reflective.search(trace.reasoning) for trace in traces)
    assert all(trace.reasoning.endswith(f"the answer is {trace.answer}.") for trace in traces)


def test_verbose_traces_have_at_least_250_tokens(problems, smollm2_tokenizer):
    lengths = [len(smollm2_tokenizer(verbose_trace(problem).output)["input_ids"]) for problem in problems[:300]]
    assert min(lengths) >= 250


@pytest.mark.parametrize("problem", list(generate(16, seed=9)), ids=lambda problem: problem.family)
def test_inverse_equations_are_true(problem):
    for step in problem.computations:
        left, value = inverse(step).split(" = ")
        assert eval(left.replace("×", "*")) == int(value)


def test_bad_requests_are_refused():
    with pytest.raises(DRPError, match="count is -1"):
        next(generate(-1))
    with pytest.raises(DRPError, match="split is 'dev'"):
        next(generate(1, "dev"))
