"""What a reasoning says, sentence by sentence, and where every value in it comes from."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from drp_hf.plain_numbers import LARGEST, read_number
from drp_hf.records import Trace
from drp_hf.segment import Unit
from drp_hf.teachers.quantities import Reading, read, round_key
from drp_hf.teachers.rewriting import first_side
from drp_hf.teachers.skills import Role, role, settles

CONSTANTS = frozenset({0.5, 1.0, 2.0, 7.0, 10.0, 12.0, 24.0, 52.0, 60.0, 100.0, 365.0, 1000.0})
"""Numbers that need no origin: parts and powers, and what a day, week, year or hour is made of."""
WORD = re.compile(r"[A-Za-z]{3,}")
STOP_WORDS = frozenset(
    "what when which many much will does have that this with from they them their there each more".split()
)


def _bare(text: str) -> str:
    """An equation without spaces and words, to know a repetition by."""
    return re.sub(r"[A-Za-z]{2,}|[^\w=+*/-]", "", text)


_MEMORY = 50
"""Computations of one value that are looked through; with the next, what keeps the time linear in the trace."""
_LONGEST_CHAIN = 300
"""Units; what depends on more is not arithmetic that a slice could follow."""
_SMALL_STEPS = 6
"""Units, from an announced computation to the result of the mental arithmetic."""
_DOUBTS = (Role.CHECK, Role.QUESTION, Role.OTHER_WAY)


class Origin(NamedTuple):
    """Where a value is stated as the result of a computation.

    Args:
        unit: the unit that states it.
        chain: that unit and all it depends on.
        operands: what it is computed from, sorted, to know the same computation again.
        doubted: whether it only computes again, after a doubt, what was known before.
    """

    unit: int
    chain: frozenset[int]
    operands: tuple[float, ...]
    doubted: bool = False


class Ledger:
    """What a trace says, unit by unit, and where every value comes from.

    Args:
        trace: the trace.
        units: its units.
        skills: whether units have roles and skills; without, all are work of no name.
    """

    def __init__(self, trace: Trace, units: list[Unit], skills: bool = True) -> None:
        self.trace = trace
        self.units = units
        self.readings = [read(unit.text) for unit in units]
        self.skills = skills
        self.roles = [Role.WORK] * len(units)
        if skills:
            self.roles = [role(unit.text, reading) for unit, reading in zip(units, self.readings, strict=True)]
            self._mark_quotations()
        question = read(trace.question)
        self.given = question.values | hundredths(question)
        self.given |= {value for equation in question.equations for value in equation.inner}
        gold = read_number(trace.answer)
        numeric = gold is not None and abs(gold.value) <= LARGEST
        self.gold = round_key(abs(float(gold.value))) if numeric else None
        sentences = [part for part in re.split(r"(?<=[.?!])\s+", trace.question.strip()) if part]
        self.asked = {
            w.lower()[:5] for w in WORD.findall(sentences[-1] if sentences else "") if w.lower() not in STOP_WORDS
        }
        self.origins: dict[float, list[Origin]] = defaultdict(list)
        self.implied: dict[float, Origin] = {}
        self.announcements: dict[int, int] = {}
        """For units that do mental arithmetic with numbers from nowhere: the unit that announces what they work out."""
        self.said: dict[float, list[int]] = defaultdict(list)
        self.chains: list[frozenset[int] | None] = []
        self.variables = set().union(*(reading.variables for reading in self.readings))
        self.first_use: dict[str, int] = {}
        for index in range(len(units)):
            self._enter(index)

    def _mark_quotations(self) -> None:
        """A quotation of several sentences is re-reading from its first to its last."""
        inside = False
        for index, unit in enumerate(self.units):
            text = unit.text
            if inside:
                self.roles[index] = Role.REREAD
            if (text.count('"') + text.count("“") + text.count("”")) % 2:
                inside = not inside
                if inside and len(text) > 40:
                    self.roles[index] = Role.REREAD
            if "\n\n" in text:
                inside = False

    def _enter(self, index: int) -> None:
        """Links a unit to the earlier units that it depends on, then notes what it derives and states."""
        chain = self._chain(index)
        self.chains.append(chain)
        reading = self.readings[index]
        for letter in reading.letters & self.variables:
            self.first_use.setdefault(letter, index)
        if self.roles[index] is Role.QUESTION:
            return
        own: set[float] = set()
        for equation in reading.equations:
            own.update(equation.operands)
            if not equation.exact or chain is None:
                continue
            values = {equation.value, *equation.inner}
            own |= values
            operands = tuple(sorted(equation.operands))
            for value in values:
                # "1 pound a day times 7 days" does not say that it comes to 7.
                if equation.stated or value in reading.values - set(equation.operands):
                    announced = self._announced(value, index, operands)
                    doubted = (value in self.origins or value in self.given) and self._doubted(index)
                    self.origins[value].append(Origin(index, chain | announced, operands, doubted))
                else:
                    self.implied[value] = Origin(index, chain, operands)
        if reading.variables and reading.has_equals and not own and reading.numbers and chain is not None:
            # "P = 3": what the algebra before it comes to.
            self.origins[abs(reading.numbers[-1][0])].append(Origin(index, chain, ()))
        for value in reading.values:
            if value not in own and value in self.implied and chain is not None:
                # "4 times 12." … "So the wire is 48 inches long.": computed there, stated here.
                computed = self.implied[value]
                self.origins[value].append(Origin(index, chain | computed.chain, computed.operands))
        for value in reading.values | hundredths(reading):
            self.said[value].append(index)
        if chain is None:
            self._enter_small_steps(index)

    def _enter_small_steps(self, index: int) -> None:
        """A result told after mental arithmetic ("240 + 100 is 340, plus 26 is 366") belongs to what was announced."""
        numbers = self.readings[index].numbers
        value = abs(numbers[-1][0]) if numbers else 0.0
        computed = self.implied.get(value)
        if computed is None or not 0 < index - computed.unit <= _SMALL_STEPS:
            return
        fits = self.announces(computed.unit) and self.ends_with_number(computed.unit)
        if self.roles[computed.unit] not in (Role.WORK, Role.PLAN) or not fits:
            return
        self.announcements[index] = computed.unit
        doubted = (value in self.origins or value in self.given) and self._doubted(index)
        self.origins[value].append(Origin(index, computed.chain | {index}, computed.operands, doubted))

    def announces(self, index: int) -> bool:
        """Whether a unit's one computation leaves its result open, and nothing is counted after it."""
        reading = self.readings[index]
        if len(reading.equations) != 1 or reading.variables or reading.equations[0].stated:
            return False
        text, equation = self.units[index].text.strip(), reading.equations[0]
        after = sum(at >= equation.start for _, at in reading.numbers)
        return equation.exact and (after <= len(equation.operands) or first_side(text) != text)

    def ends_with_number(self, index: int) -> bool:
        """Whether little more than a unit of measure follows a unit's last number."""
        return len(self.units[index].text.strip()) - self.readings[index].numbers[-1][1] < 25

    def _doubted(self, index: int) -> bool:
        """Whether a unit stands in a doubt: it, or one of the two before it that nothing has settled since."""
        for earlier in range(index, max(index - 3, -1), -1):
            if earlier < index and settles(self.units[earlier].text):
                return False
            if self.roles[earlier] in _DOUBTS:
                return True
        return False

    def _announced(self, value: float, index: int, operands: tuple[float, ...]) -> frozenset[int]:
        """The computation just announced ("48 + 64"), when this only does it in small steps ("40 + 60 is 100")."""
        computed = self.implied.get(value)
        if computed is None or computed.operands == operands or not 0 < index - computed.unit <= 5:
            return frozenset()
        return computed.chain

    def _chain(self, index: int) -> frozenset[int] | None:
        """The units that a unit depends on, itself included; None if a number in its equations comes from nowhere."""
        reading = self.readings[index]
        needed = {index}
        available: set[float] = set()
        for equation in reading.equations:
            for place, operand in enumerate(equation.operands):
                if operand in available:
                    continue
                source = self.source(operand, index, equation.operands[:place].count(operand))
                if source is not None:
                    needed |= source
                elif not equation.operators:
                    continue  # a coefficient that nobody explains
                elif not any(value == operand and at < equation.start for value, at in reading.numbers):
                    return None
                else:
                    needed |= self._algebra(index, grow=True) | self._support(index, operand)
            available |= {equation.value, *equation.inner}
        if reading.variables and reading.has_equals:
            needed |= self._algebra(index, grow=not any(each.exact and each.stated for each in reading.equations))
        return frozenset(needed) if len(needed) <= _LONGEST_CHAIN else None

    def _algebra(self, index: int, grow: bool) -> set[int]:
        """The earlier equations in the same letters, back to where these are introduced.

        Args:
            index: the unit with an equation in letters.
            grow: whether letters met on the way count, too.
        """
        letters = self.readings[index].letters & self.variables
        found: set[int] = set()
        seen = {_bare(self.units[index].text)}
        gap = 0
        for earlier in range(index - 1, max(index - 40, -1), -1):
            reading, part = self.readings[earlier], self.roles[earlier]
            if part is Role.OTHER_WAY or gap > 6:
                break
            bare = _bare(self.units[earlier].text)
            usable = part in (Role.WORK, Role.PLAN) and reading.has_equals and self.chains[earlier] is not None
            if not letters & reading.letters or not usable:
                gap += 1
                continue
            gap = 0
            if bare not in seen:
                seen.add(bare)
                found |= self.chains[earlier]
                if grow:
                    letters = letters | (reading.letters & self.variables)
        for letter in letters:
            first = self.first_use.get(letter)
            if first is not None and self.chains[first] is not None and len(self.units[first].text) < 300:
                found.add(first)
        return found

    def source(self, value: float, before: int, repeat: int = 0) -> frozenset[int] | None:
        """The units that a value used in unit `before` comes from: empty if it is given, None if from nowhere.

        Args:
            value: the value.
            before: the unit that uses it.
            repeat: how often the same computation has used it already ("60 + 60" may add two different sixties).
        """
        origins = self.results(self.origins.get(value, [])[-_MEMORY:])
        works = [o for o in origins if self.roles[o.unit] in (Role.WORK, Role.PLAN) and not o.doubted]
        if value in self.given:
            works = [origin for origin in works if before - origin.unit <= 8]
        else:
            works = works or origins
        if works:
            # The latest computation of it is the one meant; of its repetitions the first is the one to keep.
            meant = list(dict.fromkeys(origin.operands for origin in reversed(works)))
            tellings = [origin for origin in works if origin.operands == meant[min(repeat, len(meant) - 1)]]
            if repeat < len(meant):
                return tellings[0].chain
            apart = self._told_apart(tellings)
            return apart[min(repeat, len(apart) - 1)].chain
        if value in self.given:
            return frozenset()
        asserted = next((i for i in self.said.get(value, ()) if self.chains[i] is not None), None)
        if value in CONSTANTS:
            return frozenset({asserted} if asserted is not None and before - asserted <= 8 else ())
        return None if asserted is None else self.chains[asserted] | self._support(asserted, value)

    def results(self, origins: list[Origin]) -> list[Origin]:
        """The origins without small steps whose result is also told plainly ("plus 26 is 366. So it is 366 in all.")."""
        if not any(origin.unit in self.announcements for origin in origins):
            return origins
        plain = {origin.operands for origin in origins if origin.unit not in self.announcements}
        return [o for o in origins if o.unit not in self.announcements or o.operands not in plain]

    def _told_apart(self, tellings: list[Origin]) -> list[Origin]:
        """Computations with the same operands that are about different things ("the rulers", "the erasers")."""
        stems = [self.stems(origin.unit) for origin in tellings]
        return [origin for place, origin in enumerate(tellings) if not any(stems[place] <= s for s in stems[:place])]

    def _support(self, index: int, value: float) -> frozenset[int]:
        """Where the other numbers of a sentence that merely asserts `value` come from."""
        support: set[int] = set()
        for other in self.readings[index].values - self.given - {value}:
            for origin in self.origins.get(other, ())[:1]:
                support |= origin.chain
        return frozenset(support)

    def says_last(self, index: int, value: float) -> bool:
        """Whether a unit's last number is `value`."""
        numbers = self.readings[index].numbers
        return bool(numbers) and abs(numbers[-1][0]) == value

    def words(self, index: int) -> int:
        return len(WORD.findall(self.units[index].text))

    def stems(self, index: int) -> set[str]:
        """What a unit speaks of: the beginnings of its words, without those that say nothing."""
        return {word.lower()[:5] for word in WORD.findall(self.units[index].text)} - STOP_WORDS


def hundredths(reading: Reading) -> set[float]:
    """The values of a unit's percentages: who says "40%" has said 0.4."""
    return {round_key(value / 100) for value in reading.percents}


def missing(ledger: Ledger, kept: Iterable[int]) -> list[tuple[int, float]]:
    """The operands (unit, value) that are neither given nor stated earlier in what is kept."""
    seen = set(ledger.given | CONSTANTS)
    lacking = []
    entered: set[int] = set()
    for index in kept:
        reading = ledger.readings[index]
        here: set[float] = set()
        # Of small steps only the result is told, with the announcement.
        told = ledger.announcements.get(index) not in entered
        entered.add(index)
        for equation in reading.equations if told else ():
            before = {value for value, place in reading.numbers if place < equation.start}
            for operand in equation.operands:
                if operand not in seen and operand not in before and operand not in here:
                    lacking.append((index, operand))
            here |= {equation.value, *equation.inner}
        seen |= reading.values | hundredths(reading)
    return lacking
