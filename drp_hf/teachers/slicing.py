"""The offline teacher: slices a reasoning backward from its answer, as a compiler slices a program.

No model, no randomness: the same trace gives the same steps. In order:

1. **Read** (`quantities.py`). Every unit's numbers, in digits or words, and its computations: "3 × 4 = 12", "a third of
   90", "8 plus 40, which is 48", "dividing 180 by 5 gives 36", `\\frac{3}{5} \\times 700`. A computation counts as a
   derivation only if it is arithmetically right.
2. **Role** (`skills.py`). By its words a unit works, plans, talks to itself, asks, checks, tries another way or re-reads
   the question.
3. **Link** (`ledger.py`). In reading order, every number that a computation uses is linked to the unit that derived it:
   the latest computation of that value, in its first telling, unless that came up in a doubt not yet settled; numbers of
   the question need no origin. Equations in letters are linked to the earlier equations in the same letters, back to where these are
   introduced. So every unit has its *chain*: all the units it depends on.
4. **Goal**. Of the units that derive the answer, the first that looks like an arrival (it speaks of what was asked,
   concludes, is followed by doubt or by the end) and whose chain uses most of the question's numbers: a value that only
   happens to equal the answer does not. The slice is its chain, and the sentence that states the answer.
5. **Explain**. `hard` keeps the slice, and after a bare formula the sentence that says what it means. `goal` and `bare`
   add what is to be found, where the trace says so before it computes. `default` adds to `hard` the sentence before
   each computation that says what is computed and why. `light` adds all other statements on the way. Explanations with
   a number that nothing kept has stated stay out, and so do repetitions.
6. **Tell** (`telling.py`, `rewriting.py`). Fillers, announcements and asides go (COMPRESS); a computation that is
   announced in one sentence and done in another becomes one (MERGE). Mental arithmetic with numbers from nowhere goes,
   too: "8 * 45. 8 * 40 is 320, 8 * 5 is 40, so 360" and "8 * 45 = 320 + 40 = 360" become "8 * 45 = 360". `goal` says
   what is to be found as "Find how many …"; `bare` leaves nothing of a computation but its formula; both drop an end
   that only repeats the last result. What is fine stays byte for byte (KEEP); the rest, re-reading, re-checking, repeated
   derivations, abandoned branches, self-talk, is DELETEd. Every step has a named skill.

Where there is no chain of arithmetic to the answer, or the mathematics is symbolic (powers, roots, functions, a question
in LaTeX), values do not show what depends on what. Then the teacher cuts after the first unit that states the right
answer, and removes self-talk; the proposal's note says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from drp_hf.errors import DRPError
from drp_hf.pruning import apply_steps
from drp_hf.records import Action, Step, Trace
from drp_hf.segment import Unit
from drp_hf.teacher import Proposal, Teacher
from drp_hf.teachers.ledger import CONSTANTS, WORD, Ledger, missing
from drp_hf.teachers.protocol import Segmentation
from drp_hf.teachers.skills import Role, concludes
from drp_hf.teachers.telling import find_setup, formulas_alone, goal_first, tell, write_steps

Strength = Literal["light", "default", "hard", "goal", "bare"]
_BACKWARD = re.compile(r"(?:so |and |then )?(?:that|this|which|these|those|it)(?:'s|\b)", re.IGNORECASE)
_MILDER = {
    "bare": ("bare", "hard", "default", "light"),
    "goal": ("goal", "hard", "default", "light"),
    "hard": ("hard", "default", "light"),
    "default": ("default", "light"),
    "light": ("light",),
}
_HARD = ("hard", "goal", "bare")
_RETOLD = {"goal": goal_first, "bare": formulas_alone}
_MOST_GOALS = 50
_FIRST = 8
"""Units in which a reasoning says what it is after."""
_SEEKS = re.compile(r"\b(?:find|figure|determin|calculat|comput|work out|how (?:many|much)|question)", re.IGNORECASE)
_TURNS = (Role.CHECK, Role.OTHER_WAY, Role.HEADING, Role.QUESTION)


@dataclass(frozen=True)
class Goal:
    """Where a reasoning arrives: the unit that derives the answer and the one that states it."""

    derivation: int
    chain: frozenset[int]
    statement: int
    score: int


def goals(ledger: Ledger) -> list[Goal]:
    """The places where the answer is derived, the most credible first."""
    gold = ledger.gold
    found = []
    for origin in ledger.results(ledger.origins.get(gold, [])[:_MOST_GOALS]):
        if ledger.roles[origin.unit] is not Role.OTHER_WAY:
            found.append(_goal(ledger, origin.unit, origin.chain))
    # A value that only happens to equal the answer is reached with few of the question's numbers.
    used = [len(ledger.given & _operands(ledger, goal.chain)) for goal in found]
    enough = 0.75 * max(used, default=0)
    ranked = sorted(
        zip(found, used, strict=True), key=lambda pair: (pair[1] < enough, -min(pair[0].score, 2), pair[0].derivation)
    )
    return [goal for goal, _ in ranked]


def _operands(ledger: Ledger, chain: frozenset[int]) -> set[float]:
    """The numbers that a chain computes with; of a unit that computes nothing, all it states."""
    used: set[float] = set()
    for index in chain:
        reading = ledger.readings[index]
        used.update(*(equation.operands for equation in reading.equations))
        if not reading.equations:
            used |= reading.values
    return used


def _goal(ledger: Ledger, index: int, chain: frozenset[int]) -> Goal:
    gold = ledger.gold
    last = len(ledger.units) - 1
    statement = index
    own = ledger.says_last(index, gold) and concludes(ledger.units[index].text) and ledger.words(index) >= 3
    if not own:
        for later in range(index + 1, min(index + 4, last) + 1):
            if ledger.roles[later] not in (Role.WORK, Role.PLAN, Role.HEADING):
                break
            if ledger.says_last(later, gold) and ledger.words(later) >= 2 and not ledger.readings[later].equations:
                statement = later
                break
    if not own and statement == index:
        statement = _conclusion(ledger, index)
    text = ledger.units[statement].text
    score = 0
    stems = {word.lower()[:5] for word in WORD.findall(text)}
    score += bool(stems & ledger.asked)
    score += concludes(text) and ledger.says_last(statement, gold)
    after = ledger.roles[statement + 1 : statement + 3]
    after = ledger.roles[index + 1 : index + 3] + after
    score += statement >= last - 1 or any(each in _TURNS for each in after)
    return Goal(index, chain, statement, score)


def _conclusion(ledger: Ledger, index: int) -> int:
    """The first later sentence that concludes with the answer and does nothing else; the unit itself without one."""
    for later in range(index + 1, len(ledger.units)):
        if ledger.roles[later] in (Role.WORK, Role.PLAN) and ledger.says_last(later, ledger.gold):
            sole = (
                ledger.readings[later].values <= {ledger.gold} | ledger.given and not ledger.readings[later].equations
            )
            if sole and ledger.words(later) >= 2 and concludes(ledger.units[later].text):
                return later
    return index


class SlicingTeacher(Teacher):
    """Prunes without a model, by slicing backward from the answer (the module's docstring explains how).

    Args:
        strength: how much explanation around the needed computations stays: `light`, `default`, `hard`; `goal`, as
            `hard`, but with what is to be found at the start and nothing repeated at the end; or `bare`, what is to be
            found and formulas.
        segmentation: `skill`; `plain`, which goes by values alone, blind to the part that a unit's words say it plays;
            or `none`, which knows no steps, and shortens the trace up to the answer as a whole.
    """

    def __init__(self, strength: Strength = "default", segmentation: Segmentation = "skill") -> None:
        if strength not in _MILDER:
            raise DRPError(f"strength must be light, default, hard, goal or bare, not {strength!r}.")
        self.strength = strength
        self.segmentation = segmentation
        self.name = f"slicing-{strength}" + (f"-{segmentation}" if segmentation != "skill" else "")

    def propose(self, trace: Trace, units: list[Unit]) -> Iterator[Proposal]:
        hard = self.strength in _HARD
        if self.segmentation == "none":
            ledger = Ledger(trace, units)
            steps = write_steps(ledger, tell(ledger, up_to_answer(ledger), hard))
            rewrite = apply_steps(trace.reasoning, steps).text
            yield Proposal([Step(0, len(trace.reasoning), "", Action.COMPRESS, rewrite)])
            return
        ledger = Ledger(trace, units, skills=self.segmentation == "skill")
        sliced = _slice(ledger)
        if sliced is not None:
            goal, needed = sliced
            for strength in _MILDER[self.strength]:
                pieces = tell(ledger, _select(ledger, goal, needed, strength), strength in _HARD)
                note = "" if strength == self.strength else f"milder slice ({strength})"
                retell = _RETOLD.get(strength)
                yield Proposal(write_steps(ledger, retell(ledger, pieces) if retell else pieces), note)
        why = "no chain of arithmetic to the answer" if sliced is None else "slice failed"
        cut = _first_answer(ledger)
        everything = list(range(cut + 1))
        kept = [i for i in everything if i == cut or ledger.roles[i] not in _REDUNDANT]
        note = f"cut after the first right answer, self-talk removed ({why})"
        yield Proposal(write_steps(ledger, tell(ledger, kept, hard)), note)
        note = f"cut after the first right answer ({why})"
        yield Proposal(write_steps(ledger, tell(ledger, everything, None)), note)


def up_to_answer(ledger: Ledger) -> list[int]:
    """Everything up to where the answer is derived, and the sentence that states it."""
    arrivals = goals(ledger)
    if not arrivals:
        return list(range(_first_answer(ledger) + 1))
    return sorted({*range(arrivals[0].derivation + 1), arrivals[0].statement})


_REDUNDANT = (Role.TALK, Role.CHECK, Role.QUESTION, Role.REREAD)


# Mathematics beyond arithmetic and linear equations: its steps depend on each other in ways that values do not show.
_SYMBOLIC = re.compile(
    r"\^(?!\{?\\?circ)|[²³√π∑Σ∫≤≥∈∪∩]|\d!|[a-z]_\{?\d|\b[A-Za-z]\([^()]{1,20}\)"
    r"|\\(?:sqrt|binom|sum|int|log|sin|cos|tan|pi|le|ge|infty|mod|pmod)\b"
    r"|\b(?:sqrt|log|sin|cos|tan|mod|choose|gcd|lcm)\b"
)
_MATHEMATICAL_QUESTION = re.compile(r"\$[^$\s]{0,80}?[A-Za-z\\][^$\s]{0,80}\$|\\[a-zA-Z]{2,}|\\\(")


def _slice(ledger: Ledger) -> tuple[Goal, frozenset[int]] | None:
    if ledger.gold is None or _MATHEMATICAL_QUESTION.search(ledger.trace.question):
        return None
    candidates = [(goal, goal.chain | {goal.statement}) for goal in goals(ledger)]
    for avoidable in (False, True):
        for goal, needed in candidates:
            if any(_SYMBOLIC.search(ledger.units[index].text) for index in needed):
                continue
            lacking = missing(ledger, sorted(needed))
            # A number that the trace itself uses without a source can be no reason against the slice.
            if not any(
                not avoidable or any(i < index for i in ledger.said.get(value, ())) for index, value in lacking
            ):
                return goal, needed
    return None


def _select(ledger: Ledger, goal: Goal, needed: frozenset[int], strength: Strength) -> list[int]:
    """The units that stay: the needed ones, and around them as much explanation as the strength allows."""
    kept = set(needed)
    if strength == "light":
        first = max(0, min(needed) - 3)
        kept |= {
            i
            for i in range(first, goal.statement)
            if ledger.roles[i] is Role.WORK and not ledger.readings[i].equations
        }
    for index in sorted(needed):
        if strength not in _HARD and ledger.readings[index].equations:
            kept |= _before(ledger, index, kept)
        kept |= _after(ledger, index, kept, strength in _HARD)
        kept |= _opening(ledger, index)
    if strength in _RETOLD:
        kept |= _aim(ledger, min(needed))
    kept = [index for index in sorted(kept) if index <= goal.statement]
    lacking = {index for index, _ in missing(ledger, kept)}
    kept = [index for index in kept if index in needed or index not in lacking]
    return _without_repeats(ledger, kept, needed)


def _aim(ledger: Ledger, start: int) -> set[int]:
    """The sentence before all computations that says what is to be found: formulas alone do not tell when to end."""
    for index in range(min(start, _FIRST)):
        text = ledger.units[index].text
        says = len(ledger.stems(index) & ledger.asked) >= min(2, len(ledger.asked))
        if says and _SEEKS.search(text) and len(text) < 200 and not ledger.readings[index].equations:
            return {index}
    return set()


def _opening(ledger: Ledger, index: int) -> set[int]:
    """The words that a displayed formula continues ("We have \\[ … \\]")."""
    if not index or not ledger.units[index].text.startswith(("\\[", "$$", "\\begin")):
        return set()
    previous = ledger.units[index - 1].text.rstrip()
    return {index - 1} if previous[-1:] not in (".", "!", "?") and len(previous) < 200 else set()


def _before(ledger: Ledger, index: int, kept: set[int]) -> set[int]:
    """The sentence before a needed unit that says what is computed and why."""
    bare = ledger.words(index) < 4
    found: set[int] = set()
    if bare and len(ledger.readings[index].equations) == 1:
        setup = find_setup(ledger, index, max((i for i in kept if i < index), default=-1))
        bare, index = (False, setup) if setup is not None else (bare, index)
    for earlier in range(index - 1, max(index - 5, -1), -1):
        if earlier in kept:
            break
        text, part = ledger.units[earlier].text, ledger.roles[earlier]
        if part in (Role.WORK, Role.REREAD) or (part is Role.PLAN and bare and not found):
            if text[0] in '"“' or ledger.readings[earlier].equations or len(text) > 240 or ledger.words(earlier) < 3:
                break
            if not _known(ledger, earlier, kept) or text.strip() in ledger.trace.question:
                break
            found.add(earlier)
            if not _BACKWARD.match(text) or len(found) == 2:
                break
        elif part in (Role.CHECK, Role.OTHER_WAY):
            break
    return found


def _known(ledger: Ledger, index: int, kept: set[int]) -> bool:
    """Whether every number of a unit is given or stated in kept units before it."""
    numbers = {abs(value) for value in ledger.readings[index].values} - ledger.given - CONSTANTS
    return not numbers or all(any(i < index and n in ledger.readings[i].values for i in kept) for n in numbers)


def _after(ledger: Ledger, index: int, kept: set[int], hard: bool) -> set[int]:
    """The sentence after a bare computation that says what its result is."""
    reading = ledger.readings[index]
    if not reading.equations or ledger.words(index) >= (2 if hard else 4):
        return set()
    if (
        len(reading.equations) == 1
        and find_setup(ledger, index, max((i for i in kept if i < index), default=-1)) is not None
    ):
        return set()
    value = reading.equations[-1].value
    for later in range(index + 1, min(index + 4, len(ledger.units))):
        part = ledger.roles[later]
        if later in kept or part in (Role.OTHER_WAY, Role.REREAD):
            break
        if part is Role.WORK:
            says = value in ledger.readings[later].values and not ledger.readings[later].equations
            return {later} if says and ledger.words(later) >= 2 and len(ledger.units[later].text) < 240 else set()
    return set()


def _without_repeats(ledger: Ledger, kept: list[int], needed: frozenset[int]) -> list[int]:
    """Drops explanations that say again what one of the last three kept units said."""
    result: list[int] = []
    for index in kept:
        stems = ledger.stems(index)
        values = ledger.readings[index].values
        repeats = any(
            values <= ledger.readings[earlier].values and len(stems - ledger.stems(earlier)) <= len(stems) // 4
            for earlier in result[-3:]
        )
        if index in needed or not repeats:
            result.append(index)
    return result


def _first_answer(ledger: Ledger) -> int:
    """The unit after which to cut: the first that states the right answer, and is followed by doubt or the end."""
    gold = ledger.gold
    units = ledger.units
    arrivals: list[int] = []
    if gold is not None:
        spots = [i for i in range(len(units)) if ledger.says_last(i, gold) and ledger.roles[i] is not Role.QUESTION]
        # A value that stood there before ("a set of 5") may occur again without being the answer.
        fresh = () if gold in ledger.given else ledger.said[gold][:1]
        arrivals = [i for i in spots if i in fresh or _arrives(ledger, i)]
    else:
        wanted = _plain(ledger.trace.answer)
        spots = [i for i in range(len(units)) if wanted and _plain(units[i].text).rstrip(".").endswith(wanted)]
    for index in arrivals or spots:
        after = ledger.roles[index + 1 : index + 3]
        doubt = index >= len(units) - 2 or any(each in _TURNS for each in after)
        firm = ledger.roles[index] is Role.WORK and concludes(units[index].text)
        if doubt and firm and len(ledger.readings[index].numbers) <= 12:
            return index
    return spots[-1] if spots else len(units) - 1


_ARRIVES = re.compile(
    r"\b(?:therefore|thus|hence|answer|in total|altogether|conclusion)\b|\\boxed|\bfinal answer"
    r"|\bso,? (?:there|that|this|the|it|he|she|they|in total|we (?:have|get))\b",
    re.IGNORECASE,
)


def _arrives(ledger: Ledger, index: int) -> bool:
    """Whether a unit concludes with the answer, or computes it, rather than merely mentions its value."""
    computed = any(each.stated and each.value == ledger.gold for each in ledger.readings[index].equations)
    return computed or bool(_ARRIVES.search(ledger.units[index].text))


def _plain(text: str) -> str:
    return re.sub(
        r"\\left|\\right|\\boxed|\\text|\\[()\[\],;! ]|[\s${}]",
        "",
        text.replace("dfrac", "frac").replace("tfrac", "frac"),
    )
