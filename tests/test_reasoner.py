"""The embedded reasoner is what the quickstart says it is."""

import re

import pytest

from drp_hf.embedded import REASONER
from drp_hf.engines import Sampling, make_engine
from drp_hf.problems import generate
from drp_hf.scoring import is_correct

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
REFLECTION = re.compile(r"\b(wait|hmm|double-check|make sure|another way|alternatively|verify|hold on)\b", re.I)


def test_it_is_right_verbose_and_reflective_on_held_out_problems():
    problems = list(generate(64, "test", seed=77))
    engine = make_engine("transformers", REASONER)
    completions = dict(engine.generate([problem.question for problem in problems], Sampling(640)))
    right = [
        is_correct(completions[index].text, problem.answer, completions[index].finished)
        for index, problem in enumerate(problems)
    ]
    assert sum(right) / len(right) >= 0.7
    assert sum(completion.n_tokens for completion in completions.values()) / len(problems) >= 250
    assert sum(bool(REFLECTION.search(completion.text)) for completion in completions.values()) / len(problems) >= 0.8
