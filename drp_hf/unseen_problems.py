"""Word problems of families that the embedded reasoner was not taught on: what it and its students make of them tells
how far a skill carries. Written like those of `drp_hf.problems`, with the same small values."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from drp_hf.problems import NAMES, Computation, WordProblem


def _tank(r: Random) -> WordProblem:
    liquid, rate, minutes = r.choice(("water", "oil", "rain water")), r.randint(3, 9), r.randint(3, 9)
    pumped = Computation("the liters pumped in", rate, "×", minutes)
    leaked = r.randint(2, pumped.value // 2)
    inside = Computation("the liters in the tank", pumped.value, "-", leaked)
    size = inside.value + r.randint(5, 40)
    return WordProblem(
        "tank",
        (
            f"An empty tank holds {size} liters.",
            f"A pump fills in {rate} liters of {liquid} a minute for {minutes} minutes, but {leaked} liters leak out.",
        ),
        f"how many liters of {liquid} still fit into the tank",
        f"How many liters of {liquid} still fit into the tank?",
        (pumped, inside, Computation("the liters that still fit", size, "-", inside.value)),
    )


def _fence(r: Random) -> WordProblem:
    name, place = r.choice(NAMES), r.choice(("yard", "field", "playground"))
    long, wide, price = r.randint(6, 15), r.randint(2, 5), r.choice((2, 3, 4, 5))
    half = Computation("one long and one short side together", long, "+", wide)
    around = Computation("the length of the fence", half.value, "×", 2)
    return WordProblem(
        "fence",
        (
            f"{name} has a {place} that is {long} meters long and {wide} meters wide.",
            f"{name} puts a fence around all four sides, at ${price} a meter.",
        ),
        "how much the fence costs in dollars",
        "How much does the fence cost in dollars?",
        (half, around, Computation("the cost of the fence", around.value, "×", price)),
    )


def _teams(r: Random) -> WordProblem:
    size, teams, balls = r.randint(3, 8), r.randint(3, 9), r.randint(2, 5)
    made = Computation("the number of teams", size * teams, "/", size)
    needed = Computation("the number of balls for all teams", made.value, "×", balls)
    has = r.randint(1, needed.value - 1) if needed.value < 12 else r.randint(2, 11)
    return WordProblem(
        "teams",
        (
            f"A school splits {size * teams} students into teams of {size}.",
            f"Every team needs {balls} balls.",
            f"The school has {has} balls.",
        ),
        "how many balls the school has to buy",
        "How many balls does the school have to buy?",
        (made, needed, Computation("the number of balls to buy", needed.value, "-", has)),
    )


def _candles(r: Random) -> WordProblem:
    name, candles = r.choice(NAMES), r.randint(2, 5)
    burns, hours = r.randint(2, 4), r.randint(2, 5)
    burnt = Computation("the length that burns away", burns, "×", hours)
    tall = burnt.value + r.randint(3, 12)
    left = Computation("the length that is left of one candle", tall, "-", burnt.value)
    return WordProblem(
        "candles",
        (
            f"{name} lights {candles} candles that are {tall} centimeters tall.",
            f"Each candle gets {burns} centimeters shorter every hour.",
        ),
        f"how many centimeters of candle are left in all after {hours} hours",
        f"How many centimeters of candle are left in all after {hours} hours?",
        (burnt, left, Computation("the length of all candles", left.value, "×", candles)),
    )


def _elevator(r: Random) -> WordProblem:
    start, up = r.randint(2, 20), r.randint(3, 15)
    first = Computation("the floor after going up", start, "+", up)
    down = r.randint(2, first.value - 1)
    second = Computation("the floor after going down", first.value, "-", down)
    again = r.randint(2, 12)
    return WordProblem(
        "elevator",
        (
            f"An elevator starts on floor {start}.",
            f"It goes up {up} floors, then down {down} floors, and then up {again} floors.",
        ),
        "on which floor the elevator is",
        "On which floor is the elevator?",
        (first, second, Computation("the floor at the end", second.value, "+", again)),
    )


def _mixture(r: Random) -> WordProblem:
    name, drink = r.choice(NAMES), r.choice(("lemonade", "paint", "punch", "tea"))
    part, water, times = r.randint(2, 5), r.randint(2, 6), r.randint(2, 8)
    batches = Computation("the number of batches", part * times, "/", part)
    poured = Computation("the cups of water", batches.value, "×", water)
    return WordProblem(
        "mixture",
        (
            f"For every {part} cups of syrup, {name} needs {water} cups of water to make {drink}.",
            f"{name} uses {part * times} cups of syrup.",
        ),
        f"how many cups of {drink} {name} makes in all",
        f"How many cups of {drink} does {name} make in all?",
        (batches, poured, Computation("the cups in all", part * times, "+", poured.value)),
    )


def _stack(r: Random) -> WordProblem:
    what, fewer = r.choice(("cans", "bricks", "boxes", "logs")), r.randint(2, 4)
    bottom = 2 * fewer + r.randint(2, 14)
    middle = Computation("the middle row", bottom, "-", fewer)
    top = Computation("the top row", middle.value, "-", fewer)
    lower = Computation("the two lower rows together", bottom, "+", middle.value)
    return WordProblem(
        "stack",
        (
            f"A stack of {what} has three rows.",
            f"The bottom row has {bottom} {what}, and every row above has {fewer} fewer than the one below it.",
        ),
        f"how many {what} are in the stack",
        f"How many {what} are in the stack?",
        (middle, top, lower, Computation("all three rows together", lower.value, "+", top.value)),
    )


def _tickets(r: Random) -> WordProblem:
    show = r.choice(("play", "concert", "circus", "film"))
    adults, price, children = r.randint(3, 9), r.randint(4, 8), r.randint(3, 9)
    cheap = r.randint(2, price - 1)
    first = Computation("the money for the adult tickets", adults, "×", price)
    second = Computation("the money for the child tickets", children, "×", cheap)
    total = Computation("the money taken in", first.value, "+", second.value)
    rent = r.randint(5, min(30, total.value - 1))
    return WordProblem(
        "tickets",
        (
            f"A {show} sells {adults} adult tickets at ${price} each and {children} child tickets at ${cheap} each.",
            f"The hall costs ${rent}.",
        ),
        f"how many dollars the {show} earns after paying for the hall",
        f"How many dollars does the {show} earn after paying for the hall?",
        (first, second, total, Computation("what is left", total.value, "-", rent)),
    )


UNSEEN_FAMILIES: tuple[Callable[[Random], WordProblem], ...] = (
    _tank,
    _fence,
    _teams,
    _candles,
    _elevator,
    _mixture,
    _stack,
    _tickets,
)
