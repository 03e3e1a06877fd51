import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drp_hf.records import Action
from drp_hf.rendering import Region, Span
from drp_hf.step_weights import STRADDLES, per_step, token_owners


def offsets_of(tokenizer, text):
    return tokenizer(text, return_offsets_mapping=True)["offset_mapping"]


def slow_owners(tokenizer, text, spans, weights, straddle):
    """The definition, token by token and character by character."""
    result = []
    for start, end in offsets_of(tokenizer, text):
        characters = [i for i in range(start, end) if not text[i].isspace()] or list(range(start, end))
        touched = [next(k for k, span in enumerate(spans) if span.start <= i < span.end) for i in characters]
        if straddle == "first":
            result.append(touched[0])
        elif straddle == "last":
            result.append(touched[-1])
        else:
            wanted = (max if straddle == "max" else min)(weights[k] for k in touched)
            result.append(next(k for k in touched if weights[k] == wanted))
    return result


def tiles(borders, length):
    edges = sorted({0, length, *borders})
    return [Span(start, end, Action.KEEP) for start, end in zip(edges, edges[1:], strict=False)]


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=80), data=st.data())
def test_owners_follow_the_definition_on_any_text(smollm2_tokenizer, text, data):
    spans = tiles(data.draw(st.sets(st.integers(1, len(text)), max_size=8)), len(text))
    weights = [data.draw(st.sampled_from([-0.5, 0.0, 0.25, 1.0, 3.0])) for _ in spans]
    straddle = data.draw(st.sampled_from(STRADDLES))
    offsets = np.array(offsets_of(smollm2_tokenizer, text), dtype=int).reshape(-1, 2)  # "\x16" has no token
    found = token_owners(offsets, text, spans, weights, straddle)
    assert found.tolist() == slow_owners(smollm2_tokenizer, text, spans, weights, straddle)


@pytest.mark.parametrize(
    ("straddle", "expected"), [("max", [1, 0]), ("min", [0, 1]), ("first", [0, 0]), ("last", [1, 1])]
)
def test_which_step_a_token_across_a_border_belongs_to(smollm2_tokenizer, straddle, expected):
    text = "The multiplication is done."
    border = text.index("plication")
    offsets = np.array(offsets_of(smollm2_tokenizer, text))
    (across,) = [i for i, (start, end) in enumerate(offsets) if start < border < end]
    for weights, owner in zip(((0.25, 0.75), (0.75, 0.25)), expected, strict=True):
        assert token_owners(offsets, text, tiles([border], len(text)), weights, straddle)[across] == owner


def test_the_space_before_a_word_belongs_to_the_word(smollm2_tokenizer):
    text = "One. Two."
    spans = [Span(0, 5, Action.KEEP), Span(5, 9, Action.MERGE)]
    owners = token_owners(np.array(offsets_of(smollm2_tokenizer, text)), text, spans, [1.0, 0.0])
    assert dict(zip(smollm2_tokenizer.tokenize(text), owners.tolist(), strict=True))["ĠTwo"] == 1


def test_a_token_of_no_character_belongs_to_where_it_stands():
    spans = [Span(0, 2, Region.PROMPT), Span(2, 4, Region.ANSWER)]
    offsets = np.array([[0, 0], [0, 2], [2, 2], [2, 4], [4, 4]])
    assert token_owners(offsets, "abcd", spans, [0, 1]).tolist() == [0, 0, 1, 1, 1]


def test_per_step_counts_only_what_counts():
    owners = np.array([0, 0, 1, 1, 1, 2])
    counted = np.array([False, False, True, True, False, True])
    assert per_step(owners, counted).tolist() == [0, 0, 0.5, 0.5, 0, 1]
    assert per_step(owners, np.zeros(6, dtype=bool)).tolist() == [0] * 6
