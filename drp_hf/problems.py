"""Grade-school word problems written by a program: as many as wanted, seeded, train and test disjoint.

Each family is a function from a random generator to a `WordProblem` that carries its facts and computations, so that
`drp_hf.verbose_traces` can tell the solution in as many words as wanted. Values stay small (most below 120): a problem
should be hard for what it asks, not for its digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from drp_hf.errors import DRPError
from drp_hf.records import Problem

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "×": lambda a, b: a * b,
    "/": lambda a, b: a // b,
}


@dataclass(frozen=True)
class Computation:
    """One step of a solution.

    Args:
        what: what the step finds, as a noun phrase ("the total cost of the pens").
        left: left operand.
        operation: one of + - × /; a division has no remainder.
        right: right operand.
        lead: a remark needed before the computation ("25% is 1/4"), or empty.
    """

    what: str
    left: int
    operation: str
    right: int
    lead: str = ""

    @property
    def value(self) -> int:
        return OPERATIONS[self.operation](self.left, self.right)

    @property
    def equation(self) -> str:
        return f"{self.left} {self.operation} {self.right} = {self.value}"


@dataclass(frozen=True)
class WordProblem:
    """A problem with everything that is needed to tell its solution.

    Args:
        family: name of the family it comes from.
        facts: the sentences of the problem, without the question.
        asked: what is asked, as a noun phrase.
        question_sentence: the sentence with the question mark.
        computations: 2 to 5 steps; the last one's value is the answer.
    """

    family: str
    facts: tuple[str, ...]
    asked: str
    question_sentence: str
    computations: tuple[Computation, ...]

    @property
    def question(self) -> str:
        return " ".join((*self.facts, self.question_sentence))

    @property
    def answer(self) -> str:
        return str(self.computations[-1].value)

    def to_problem(self) -> Problem:
        return Problem(question=self.question, answer=self.answer)


NAMES = ("Mia", "Tom", "Ana", "Ben", "Lena", "Omar", "Sara", "Jack", "Nina", "Paul", "Ivy", "Max", "Rosa", "Leo")
THINGS = ("pens", "stickers", "marbles", "cards", "shells", "buttons", "stamps", "beads")
SNACKS = ("cookies", "muffins", "rolls", "tarts")
GOODS = ("notebooks", "pencils", "erasers", "folders", "rulers", "brushes")
UNIT_FRACTIONS = {50: 2, 25: 4, 20: 5, 10: 10}
TIMES = {2: "twice", 3: "three times", 4: "four times"}


def _boxes(r: Random) -> WordProblem:
    name, thing = r.choice(NAMES), r.choice(THINGS)
    boxes, each, more = r.randint(2, 9), r.randint(2, 9), r.randint(3, 20)
    first = Computation(f"the number of {thing} in the boxes", boxes, "×", each)
    second = Computation(f"the number of {thing} after buying more", first.value, "+", more)
    facts = [f"{name} has {boxes} boxes with {each} {thing} each.", f"Then {name} buys {more} more {thing}."]
    steps = [first, second]
    if r.random() < 0.5:
        gone = r.randint(2, min(12, second.value - 1))
        facts.append(f"After that, {name} gives away {gone} {thing}.")
        steps.append(Computation(f"the number of {thing} after giving some away", second.value, "-", gone))
    return WordProblem(
        "boxes",
        tuple(facts),
        f"how many {thing} {name} has now",
        f"How many {thing} does {name} have now?",
        tuple(steps),
    )


def _baking(r: Random) -> WordProblem:
    name, snack = r.choice(NAMES), r.choice(SNACKS)
    friends, share, eaten = r.randint(2, 6), r.randint(2, 9), r.randint(1, 8)
    total = friends * share + eaten
    trays = next((t for t in (4, 3, 5, 2, 6) if total % t == 0 and total // t <= 12), 1)
    if trays == 1:
        eaten += 1 if total % 2 else 2
        total = friends * share + eaten
        trays = 2
    baked = Computation(f"the number of {snack} baked", trays, "×", total // trays)
    left = Computation(f"the number of {snack} left", total, "-", eaten)
    return WordProblem(
        "baking",
        (
            f"{name} bakes {trays} trays of {total // trays} {snack}.",
            f"{name} eats {eaten} of them.",
            f"The rest is shared equally among {friends} friends.",
        ),
        f"how many {snack} each friend gets",
        f"How many {snack} does each friend get?",
        (baked, left, Computation(f"the number of {snack} for each friend", left.value, "/", friends)),
    )


def _shopping(r: Random) -> WordProblem:
    name, (one, two) = r.choice(NAMES), r.sample(GOODS, 2)
    a, p, b, q = r.randint(2, 6), r.randint(2, 6), r.randint(2, 6), r.randint(2, 6)
    first = Computation(f"the cost of the {one}", a, "×", p)
    second = Computation(f"the cost of the {two}", b, "×", q)
    total = Computation("the total cost", first.value, "+", second.value)
    steps = [first, second, total]
    facts = [f"{name} buys {a} {one} for ${p} each and {b} {two} for ${q} each."]
    due = total.value
    if r.random() < 0.4:
        coupon = r.randint(2, 5)
        facts.append(f"A coupon takes ${coupon} off the total.")
        steps.append(Computation("the price after the coupon", due, "-", coupon))
        due = steps[-1].value
    paid = (due // 10 + 1) * 10 + r.choice((0, 10))
    facts.append(f"{name} pays with ${paid}.")
    steps.append(Computation("the change", paid, "-", due))
    return WordProblem(
        "shopping",
        tuple(facts),
        f"how much change {name} gets in dollars",
        f"How much change does {name} get in dollars?",
        tuple(steps),
    )


def _discount(r: Random) -> WordProblem:
    name, thing = r.choice(NAMES), r.choice(("shirt", "lamp", "game", "book", "hat"))
    percent = r.choice(tuple(UNIT_FRACTIONS))
    part = UNIT_FRACTIONS[percent]
    price, bought = part * r.randint(2, 40 // part), r.randint(2, 4)
    off = Computation(f"the discount on one {thing}", price, "/", part, f"{percent}% is 1/{part}")
    sale = Computation(f"the sale price of one {thing}", price, "-", off.value)
    return WordProblem(
        "discount",
        (
            f"A {thing} costs ${price}.",
            f"Today there is a {percent}% discount.",
            f"{name} buys {bought} of them at the sale price.",
        ),
        f"how much {name} pays in dollars",
        f"How much does {name} pay in dollars?",
        (off, sale, Computation(f"the cost of {bought} at the sale price", bought, "×", sale.value)),
    )


def _spending(r: Random) -> WordProblem:
    name, part = r.choice(NAMES), r.randint(2, 5)
    money = part * r.randint(4, 15)
    spent = Computation("the money spent on lunch", money, "/", part)
    left = Computation("the money left after lunch", money, "-", spent.value)
    book = r.randint(1, left.value - 1) if left.value < 12 else r.randint(2, 11)
    return WordProblem(
        "spending",
        (
            f"{name} has ${money}.",
            f"{name} spends 1/{part} of it on lunch.",
            f"Then {name} spends ${book} on a bus ticket.",
        ),
        f"how many dollars {name} has left",
        f"How many dollars does {name} have left?",
        (spent, left, Computation("the money left at the end", left.value, "-", book)),
    )


def _wages(r: Random) -> WordProblem:
    name = r.choice(NAMES)
    hours, days, wage = r.randint(2, 5), r.randint(2, 4), r.choice((3, 4, 5, 10))
    worked = Computation("the number of hours worked", hours, "×", days)
    earned = Computation("the money earned", worked.value, "×", wage)
    cost = r.randint(3, min(20, earned.value - 1))
    return WordProblem(
        "wages",
        (
            f"{name} works {hours} hours a day for {days} days and earns ${wage} an hour.",
            f"Then {name} spends ${cost} on a gift.",
        ),
        f"how many dollars {name} has left",
        f"How many dollars does {name} have left?",
        (worked, earned, Computation("the money left after the gift", earned.value, "-", cost)),
    )


def _ages(r: Random) -> WordProblem:
    one, two, three = r.sample(NAMES, 3)
    age, times = r.randint(3, 12), r.choice((2, 3, 4))
    second = Computation(f"the age of {two}", age, "×", times, "" if times != 2 else "twice means times 2")
    younger = r.randint(1, min(9, second.value - 2))
    third = Computation(f"the age of {three}", second.value, "-", younger)
    facts = (
        f"{one} is {age} years old.",
        f"{two} is {TIMES[times]} as old as {one}.",
        f"{three} is {younger} years younger than {two}.",
    )
    both = Computation(f"the ages of {one} and {two} together", age, "+", second.value)
    return WordProblem(
        "ages",
        facts,
        "how old the three are together",
        "How old are the three of them together?",
        (second, third, both, Computation("the three ages together", both.value, "+", third.value)),
    )


def _reading(r: Random) -> WordProblem:
    name = r.choice(NAMES)
    pages, days, rest_days, rest_each = r.randint(4, 12), r.randint(2, 5), r.randint(2, 5), r.randint(3, 10)
    done = Computation("the number of pages read first", pages, "×", days)
    total = done.value + rest_days * rest_each
    left = Computation("the number of pages left", total, "-", done.value)
    return WordProblem(
        "reading",
        (
            f"{name} reads a book of {total} pages.",
            f"{name} reads {pages} pages a day for {days} days.",
            f"{name} wants to finish the rest in {rest_days} days, reading the same number of pages each day.",
        ),
        f"how many pages a day {name} has to read at the end",
        f"How many pages a day does {name} have to read at the end?",
        (done, left, Computation("the number of pages for each remaining day", left.value, "/", rest_days)),
    )


def _farm(r: Random) -> WordProblem:
    (small, small_legs), (large, large_legs) = r.choice(
        ((("chickens", 2), ("cows", 4)), (("ducks", 2), ("pigs", 4)), (("geese", 2), ("horses", 4)))
    )
    name, few, many = r.choice(NAMES), r.randint(3, 12), r.randint(2, 9)
    first = Computation(f"the number of legs of the {small}", few, "×", small_legs)
    second = Computation(f"the number of legs of the {large}", many, "×", large_legs)
    return WordProblem(
        "farm",
        (
            f"{name} has a farm with {few} {small} and {many} {large}.",
            f"The {small} have {small_legs} legs each and the {large} have {large_legs} legs each.",
        ),
        "how many legs the animals have in total",
        "How many legs do the animals have in total?",
        (first, second, Computation("the total number of legs", first.value, "+", second.value)),
    )


def _trip(r: Random) -> WordProblem:
    name, vehicle = r.choice(NAMES), r.choice(("drives", "rides", "cycles"))
    v, t, w, u = r.choice((10, 20, 30)), r.randint(2, 3), r.choice((5, 10, 15, 20)), r.randint(2, 3)
    first = Computation("the distance of the first part", v, "×", t)
    second = Computation("the distance of the second part", w, "×", u)
    done = Computation("the distance covered so far", first.value, "+", second.value)
    left = r.randint(2, 30)
    return WordProblem(
        "trip",
        (
            f"{name} makes a trip of {done.value + left} miles.",
            f"{name} {vehicle} {t} hours at {v} miles per hour and then {u} hours at {w} miles per hour.",
        ),
        "how many miles are left",
        "How many miles are left?",
        (first, second, done, Computation("the distance that is left", done.value + left, "-", done.value)),
    )


def _garden(r: Random) -> WordProblem:
    name, plant = r.choice(NAMES), r.choice(("tomato", "pepper", "bean", "squash"))
    rows, each, fruits = r.randint(2, 5), r.randint(3, 6), r.choice((2, 3, 4, 5, 10))
    planted = Computation("the number of plants", rows, "×", each)
    died = r.randint(2, max(2, planted.value - 10) if planted.value > 12 else 4)
    left = Computation("the number of plants that are left", planted.value, "-", died)
    return WordProblem(
        "garden",
        (
            f"{name} plants {rows} rows of {each} {plant} plants.",
            f"{died} of the plants die.",
            f"Each plant that is left gives {fruits} fruits.",
        ),
        f"how many fruits {name} gets",
        f"How many fruits does {name} get?",
        (planted, left, Computation("the number of fruits", left.value, "×", fruits)),
    )


def _collection(r: Random) -> WordProblem:
    (one, two, three), thing = r.sample(NAMES, 3), r.choice(THINGS)
    has, times = r.randint(3, 12), r.choice((2, 3, 4))
    second = Computation(
        f"the number of {thing} of {two}", has, "×", times, "" if times != 2 else "twice means times 2"
    )
    more = r.randint(2, 12)
    third = Computation(f"the number of {thing} of {three}", second.value, "+", more)
    facts = [
        f"{one} has {has} {thing}.",
        f"{two} has {TIMES[times]} as many {thing} as {one}.",
        f"{three} has {more} more {thing} than {two}.",
    ]
    if r.random() < 0.5:
        return WordProblem(
            "collection",
            tuple(facts),
            f"how many {thing} {three} has",
            f"How many {thing} does {three} have?",
            (second, third),
        )
    last = Computation(f"the number of {thing} of {two} and {three} together", second.value, "+", third.value)
    return WordProblem(
        "collection",
        tuple(facts),
        f"how many {thing} {two} and {three} have together",
        f"How many {thing} do {two} and {three} have together?",
        (second, third, last),
    )


def _classroom(r: Random) -> WordProblem:
    percent = r.choice(tuple(UNIT_FRACTIONS))
    part = UNIT_FRACTIONS[percent]
    group = part * r.randint(2, 40 // part)
    girls = Computation("the number of girls", group, "/", part, f"{percent}% is 1/{part}")
    boys = Computation("the number of boys", group, "-", girls.value)
    place, new = r.choice(("club", "choir", "camp", "team")), r.randint(2, 15)
    return WordProblem(
        "classroom",
        (
            f"A {place} has {group} children.",
            f"{percent}% of them are girls and the others are boys.",
            f"Then {new} more boys join.",
        ),
        f"how many boys are in the {place} now",
        f"How many boys are in the {place} now?",
        (girls, boys, Computation("the number of boys after that", boys.value, "+", new)),
    )


def _recipe(r: Random) -> WordProblem:
    name, stuff = r.choice(NAMES), r.choice(("flour", "milk", "sugar", "rice"))
    servings, times, cups = r.randint(2, 6), r.randint(2, 6), r.randint(2, 8)
    wanted = servings * times
    factor = Computation("how many times the recipe is needed", wanted, "/", servings)
    needed = Computation(f"the cups of {stuff} needed", times, "×", cups)
    has = r.randint(1, needed.value - 1) if needed.value < 10 else r.randint(1, 9)
    return WordProblem(
        "recipe",
        (
            f"A recipe for {servings} people needs {cups} cups of {stuff}.",
            f"{name} cooks for {wanted} people and already has {has} cups of {stuff}.",
        ),
        f"how many more cups of {stuff} {name} needs",
        f"How many more cups of {stuff} does {name} need?",
        (factor, needed, Computation(f"the cups of {stuff} still missing", needed.value, "-", has)),
    )


def _saving(r: Random) -> WordProblem:
    name = r.choice(NAMES)
    amount, weeks = 2 * r.randint(1, 5), r.randint(3, 9)
    saved = Computation("the money saved", amount, "×", weeks)
    gift = Computation("the money from the grandmother", saved.value, "/", 2, "half means divided by 2")
    return WordProblem(
        "saving",
        (
            f"{name} saves ${amount} a week for {weeks} weeks.",
            f"The grandmother of {name} gives half as much as that on top.",
        ),
        f"how many dollars {name} has in the end",
        f"How many dollars does {name} have in the end?",
        (saved, gift, Computation("the money in the end", saved.value, "+", gift.value)),
    )


def _bus(r: Random) -> WordProblem:
    vehicle, part = r.choice(("bus", "train", "ferry")), r.randint(2, 5)
    riders = part * r.randint(3, 12)
    off = Computation("the number of people who get off first", riders, "/", part)
    stay = Computation("the number of people who stay", riders, "-", off.value)
    on = r.randint(2, 12)
    after = Computation("the number of people after some get on", stay.value, "+", on)
    facts = [
        f"A {vehicle} has {riders} people on it.",
        f"At the first stop, 1/{part} of them get off.",
        f"At the second stop, {on} people get on.",
    ]
    steps = [off, stay, after]
    if r.random() < 0.5:
        gone = r.randint(2, min(9, after.value - 1))
        facts.append(f"At the third stop, {gone} people get off.")
        steps.append(Computation("the number of people after the third stop", after.value, "-", gone))
    return WordProblem(
        "bus",
        tuple(facts),
        f"how many people are on the {vehicle} now",
        f"How many people are on the {vehicle} now?",
        tuple(steps),
    )


FAMILIES: tuple[Callable[[Random], WordProblem], ...] = (
    _boxes,
    _baking,
    _shopping,
    _discount,
    _spending,
    _wages,
    _ages,
    _reading,
    _farm,
    _trip,
    _garden,
    _collection,
    _classroom,
    _recipe,
    _saving,
    _bus,
)

Split = Literal["train", "test"]


def split_of(question: str) -> Split:
    """The split a question belongs to, by its hash: one in five is a test question, whatever seed wrote it."""
    return "test" if hashlib.sha256(question.encode()).digest()[0] % 5 == 0 else "train"


def generate(
    count: int,
    split: Split = "train",
    seed: int = 0,
    families: Sequence[Callable[[Random], WordProblem]] = FAMILIES,
) -> Iterator[WordProblem]:
    """Writes different problems, the families in equal shares and mixed.

    Args:
        count: how many problems.
        split: train and test never share a question, whatever their seeds (see `split_of`).
        seed: the same seed gives the same problems, and a smaller count the first of them.
        families: what writes them.

    Raises:
        DRPError: `count` is negative or `split` is unknown.
    """
    if count < 0:
        raise DRPError(f"count is {count}; ask for 0 problems or more.")
    if split not in ("train", "test"):
        raise DRPError(f"split is {split!r}; choose train or test.")
    random = Random(f"{split}-{seed}")
    seen: set[str] = set()
    order: list[Callable[[Random], WordProblem]] = []
    while len(seen) < count:
        if not order:
            order = random.sample(families, len(families))
        family = order.pop()
        # A family that has little new left is passed over rather than searched to its last problem.
        for problem in (family(random) for _ in range(200)):
            if problem.question not in seen and split_of(problem.question) == split:
                seen.add(problem.question)
                yield problem
                break
