"""Tells the solution of a word problem as a verbose reasoning model would: restating, doubting, re-checking.

These traces teach a small model to be a *reasoner* of the R1 kind, wordy and right; pruning then makes it brief.
"""

from __future__ import annotations

from random import Random

from drp_hf.problems import Computation, WordProblem
from drp_hf.records import Trace, final_response

OPENINGS = (
    "Okay, so I need to find out {asked}.",
    "Alright, let me see. I have to find {asked}.",
    "Hmm, let me read this carefully. The question is {asked}.",
    "Okay, let me think about {asked}.",
)
RESTATE = ("The problem says: ", "Let me go over what I know. ", "So here is what is given. ", "Let me restate it. ")
PLANS = (
    "I will go step by step.",
    "Let me break it down.",
    "Let me work through it one thing at a time.",
    "There is more than one thing to work out here, so let me take it slowly.",
)
FIRST = ("First, ", "To start, ", "Let me begin: ")
NEXT = ("Then ", "Next, ", "Now ", "After that, ")
DOUBTS = ("Wait, let me check that. ", "Hmm, is that right? ", "Let me make sure. ", "Wait, let me double-check. ")
RELIEF = ("Yes, that is right.", "Okay, that works.", "Good, it matches.", "Right, so that holds.")
REVIEW = (
    "Wait, let me go over it all again. ",
    "Let me double-check the whole thing. ",
    "Hmm, let me verify my steps. ",
)
BACKWARD = ("Another way to look at it is to go backward. ", "Alternatively, I can go back from the end. ")
MISREAD = (
    "Hold on, did I misread something? It says: {fact} I used that, so it is fine.",
    "Wait, maybe I missed something. It says: {fact} No, that is what I used.",
    "Hmm, did I read it correctly? It says: {fact} Yes, I did take that into account.",
)
CONCLUDE = (
    "So the answer is {answer}.",
    "Therefore, the answer is {answer}.",
    "So in the end, the answer is {answer}.",
)

SHORTEST_WORDS = 193
"""Words and digits of the shortest trace: with think tags and answer, more than 250 tokens of SmolLM2's tokenizer."""


def inverse(computation: Computation) -> str:
    """The equation that undoes a computation: `3 × 4 = 12` gives `12 / 4 = 3`."""
    left, right, value = computation.left, computation.right, computation.value
    return {
        "+": f"{value} - {right} = {left}",
        "-": f"{value} + {right} = {left}",
        "×": f"{value} / {right} = {left}",
        "/": f"{value} × {right} = {left}",
    }[computation.operation]


def _check(computation: Computation, random: Random) -> str:
    left, right, value = computation.left, computation.right, computation.value
    if computation.operation == "×" and left <= 5:
        how = " + ".join([str(right)] * left) + f" = {value}"
    elif computation.operation in "+×" and random.random() < 0.5:
        how = f"{right} {computation.operation} {left} = {value}"
    else:
        how = inverse(computation)
    return random.choice(DOUBTS) + how + ". " + random.choice(RELIEF)


def _length(parts: list[str]) -> int:
    return sum(len(part.split()) + sum(character.isdigit() for character in part) for part in parts)


def verbose_trace(problem: WordProblem, seed: int = 0) -> Trace:
    """Writes a verbose trace that ends right.

    Args:
        problem: the problem to solve.
        seed: the same seed and problem give the same trace.

    Returns:
        A `Trace` of about 250 to 400 tokens: what is given, each computation with a check after most of them, then
        reviews and doubts, then the answer.
    """
    random = Random(f"{problem.question}-{seed}")
    opening = random.choice(OPENINGS).format(asked=problem.asked)
    paragraphs = [
        f"{opening} {random.choice(RESTATE)}{' '.join(problem.facts)} {random.choice(PLANS)}",
    ]
    for number, computation in enumerate(problem.computations):
        lead = f"{computation.lead}, so " if computation.lead else ""
        connector = random.choice(NEXT if number else FIRST)
        step = f"{connector}{lead}{computation.what} is {computation.equation}."
        if random.random() < 0.5:
            step += " " + _check(computation, random)
        paragraphs.append(step)
    steps = ", then ".join(computation.equation for computation in problem.computations)
    doubts = [
        random.choice(REVIEW) + f"{steps}. " + random.choice(RELIEF),
        random.choice(BACKWARD) + f"{inverse(problem.computations[-1])}. " + random.choice(RELIEF),
        random.choice(MISREAD).format(fact=random.choice(problem.facts)),
        random.choice(MISREAD).format(fact=random.choice(problem.facts)),
        random.choice(REVIEW) + f"{steps}. " + random.choice(RELIEF),
        f"The question is {problem.asked}, and that is what the last step gives. " + random.choice(RELIEF),
    ]
    head, tail = doubts[:2], doubts[2:]
    random.shuffle(head)
    random.shuffle(tail)
    for doubt in head + tail:
        if len(paragraphs) > len(problem.computations) + 1 and _length(paragraphs) >= SHORTEST_WORDS:
            break
        paragraphs.append(doubt)
    paragraphs.append(random.choice(CONCLUDE).format(answer=problem.answer))
    return Trace(
        question=problem.question,
        answer=problem.answer,
        reasoning="\n\n".join(paragraphs),
        response=final_response(problem.answer),
        model="drp_hf/word-problem-generator",
    )
