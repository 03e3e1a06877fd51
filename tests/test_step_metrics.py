import pytest
import torch

from drp_hf.records import Action
from drp_hf.rendering import Region, Span
from drp_hf.step_metrics import GROUPS, StepMetrics, group_code


def codes(*spans):
    return torch.tensor([[group_code(span) for span in spans]], dtype=torch.int8)


KEEP = Span(0, 1, Action.KEEP, "adding", "arithmetic")
MERGE = Span(0, 1, Action.MERGE, "checking", "verification")
STOP = Span(0, 1, Region.STOP)


def test_loss_and_share_by_action_and_by_skill():
    metrics = StepMetrics()
    mask = torch.tensor([[True, True, True, False]])
    metrics.add(torch.tensor([[-1.0, -3.0, -5.0, 0.0]]), codes(KEEP, KEEP, MERGE, KEEP), mask)
    metrics.add(torch.tensor([[-7.0]]), codes(STOP), torch.tensor([[True]]))
    assert metrics.report(lambda sums: sums) == pytest.approx(
        {
            "action_loss/KEEP": 2.0,
            "action_loss/MERGE": 5.0,
            "action_loss/stop": 7.0,
            "action_tokens/KEEP": 0.5,
            "action_tokens/MERGE": 0.25,
            "action_tokens/stop": 0.25,
            "skill_loss/arithmetic": 2.0,
            "skill_loss/verification": 5.0,
            "skill_tokens/arithmetic": 0.5,
            "skill_tokens/verification": 0.25,
        }
    )
    assert metrics.report(lambda sums: sums) == {}  # every token is told of once


def test_a_token_counts_however_many_went_before_it():
    metrics = StepMetrics()
    for loss in (2.0**24, *[1.0] * 8):  # in float32, 2**24 + 1 is 2**24
        metrics.add(torch.tensor([[-loss]]), codes(KEEP), torch.tensor([[True]]))
    assert metrics.report(lambda sums: sums)["action_loss/KEEP"] == (2**24 + 8) / 9


def test_the_sums_of_all_processes_are_told():
    metrics = StepMetrics()
    metrics.add(torch.tensor([[-1.0]]), codes(KEEP), torch.tensor([[True]]))
    other = torch.zeros(2, len(GROUPS))
    other[:, group_code(KEEP)] = torch.tensor([5.0, 1.0])
    assert metrics.report(lambda sums: sums + other)["action_loss/KEEP"] == 3.0


def test_a_category_that_the_taxonomy_has_not_is_other():
    assert GROUPS[group_code(KEEP._replace(category="juggling"))] == ("KEEP", "other")
    assert max(map(group_code, [KEEP, MERGE, STOP])) < 128  # int8
