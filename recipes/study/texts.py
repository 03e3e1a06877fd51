"""What the alternatives to pruning train on: each a function from the material to (question, completion) pairs."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from tqdm import tqdm

from drp_hf.embedded import REASONER
from drp_hf.likelihood import Likelihood
from drp_hf.pruning import judge
from drp_hf.records import THINK_CLOSE, Trace, final_response, render_output
from drp_hf.segment import segment
from drp_hf.teachers.ledger import Ledger
from drp_hf.teachers.slicing import up_to_answer

if TYPE_CHECKING:
    from recipes.study.material import Material

Pairs = Iterator[tuple[str, str]]
SAMPLES = 4
"""Traces of a question, with the likeliest."""


def raw(material: Material) -> Pairs:
    """The reasoner's likeliest traces, right or wrong."""
    return ((trace.question, trace.output) for trace in material.greedy if trace)


def right(material: Material) -> Pairs:
    """The traces that are pruned for the other arms, whole."""
    return ((trace.question, trace.output) for trace in material.right)


def shortest(material: Material) -> Pairs:
    """The shortest right one of four traces."""
    for traces in material.samples:
        correct = [trace for trace in traces if not judge(trace)]
        if correct:
            best = min(correct, key=lambda trace: material.count_tokens(trace.output))
            yield best.question, best.output


def first_answer(material: Material) -> Pairs:
    """Everything up to the sentence that derives the answer first."""
    for trace in material.right:
        units = segment(trace.reasoning)
        last = up_to_answer(Ledger(trace, units))
        end = next((place for place in last if place + 1 not in last), last[-1])
        yield trace.question, completion(trace, trace.reasoning[: units[end].end])


def random_sentences(material: Material) -> Pairs:
    """Sentences deleted at random, until no more is left than of the pruned trace."""
    for trace in material.right:
        if trace.question not in material.pruned_lengths:
            continue
        texts = [unit.text for unit in segment(trace.reasoning)]
        random = Random(trace.question)
        limit = material.pruned_lengths[trace.question]
        while len(texts) > 1 and material.count_tokens(completion(trace, "".join(texts))) > limit:
            texts.pop(random.randrange(len(texts)))
        yield trace.question, completion(trace, "".join(texts))


def informative_tokens(material: Material) -> Pairs:
    """The tokens that the reasoner is least sure of, as many as the pruned trace has (TokenSkip, 2502.12067).

    TokenSkip takes another model's opinion of a token's importance; here it is the reasoner's own surprise, as in
    Selective Context (2310.06201).
    """
    traces = [trace for trace in material.right if trace.question in material.pruned_lengths]
    scored = Likelihood(REASONER, dtype="float32").token_losses([(trace.question, trace.output) for trace in traces])
    kept = {}
    for place, ids, losses in tqdm(scored, "tokens weighed", total=len(traces), unit="trace"):
        trace, tokenizer = traces[place], material.tokenizer
        spans = tokenizer(trace.output, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        start, end = trace.output.index(trace.reasoning), trace.output.index(f"\n{THINK_CLOSE}")
        inside = [number for number in range(len(ids)) if spans[number][0] >= start and spans[number][1] <= end]
        count = material.pruned_lengths[trace.question] - (len(ids) - len(inside))
        chosen = sorted(inside, key=lambda number: -losses[number].item())[: max(count, 1)]
        kept[place] = tokenizer.decode([ids[number] for number in sorted(chosen)])
    return ((trace.question, completion(trace, kept[place])) for place, trace in enumerate(traces))


def terse(material: Material) -> Pairs:
    """The generator's own solutions, a line for each computation: what the paper calls the teacher's short answers."""
    for problem in material.problems:
        equations = "\n".join(computation.equation for computation in problem.computations)
        yield problem.question, render_output(equations, final_response(problem.answer))


def pruned_by_failures(material: Material) -> Pairs:
    """The pruned traces, each once more for every one of the four traces of its question that is not right."""
    pruned = material.pruned
    for problem, traces in zip(material.problems, material.samples, strict=True):
        if problem.question in pruned:
            failures = SAMPLES - sum(not judge(trace) for trace in traces)
            yield from [(problem.question, pruned[problem.question])] * (1 + failures)


def completion(trace: Trace, reasoning: str) -> str:
    """A shortened trace as it is trained: like a pruned one, it ends with the plain answer."""
    return render_output(reasoning.strip(), final_response(trace.answer))
