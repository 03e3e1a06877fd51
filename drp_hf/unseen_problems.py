"""Word problems of families that the embedded reasoner was not taught on: what it and its students make of them tells
how far a skill carries. Other stories in other words; the computations are of the kinds that it knows, on values as
small as in `drp_hf.problems`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from drp_hf.problems import NAMES, TIMES, Computation, WordProblem


def _parking(r: Random) -> WordProblem:
    rows, cars, more = r.randint(3, 9), r.randint(3, 9), r.randint(3, 20)
    first = Computation("the number of cars in the rows", rows, "×", cars)
    second = Computation("the number of cars after more arrive", first.value, "+", more)
    gone = r.randint(2, min(12, second.value - 1))
    return WordProblem(
        "parking",
        (
            f"A parking lot has {rows} rows with {cars} cars in every row.",
            f"Then {more} more cars arrive and {gone} cars leave.",
        ),
        "how many cars are in the parking lot now",
        "How many cars are in the parking lot now?",
        (first, second, Computation("the number of cars after some leave", second.value, "-", gone)),
    )


def _aquarium(r: Random) -> WordProblem:
    name, part = r.choice(NAMES), r.randint(2, 5)
    fish = part * r.randint(3, 10)
    red = Computation("the number of red fish", fish, "/", part)
    blue = Computation("the number of blue fish", fish, "-", red.value)
    more = r.randint(2, 12)
    return WordProblem(
        "aquarium",
        (
            f"{name} keeps {fish} fish in an aquarium.",
            f"1/{part} of them are red and all others are blue.",
            f"Then {name} buys {more} more blue fish.",
        ),
        f"how many blue fish {name} has now",
        f"How many blue fish does {name} have now?",
        (red, blue, Computation("the number of blue fish after that", blue.value, "+", more)),
    )


def _cinema(r: Random) -> WordProblem:
    name, drink = r.choice(NAMES), r.choice(("drinks", "snacks", "ice creams"))
    tickets, price, drinks, each = r.randint(2, 5), r.randint(3, 8), r.randint(2, 5), r.randint(2, 4)
    first = Computation("the cost of the tickets", tickets, "×", price)
    second = Computation(f"the cost of the {drink}", drinks, "×", each)
    total = Computation("the total cost", first.value, "+", second.value)
    money = total.value + r.randint(2, 20)
    return WordProblem(
        "cinema",
        (
            f"{name} goes to the cinema with ${money}.",
            f"{name} gets {tickets} tickets for ${price} each and {drinks} {drink} for ${each} each.",
        ),
        f"how many dollars {name} has left",
        f"How many dollars does {name} have left?",
        (first, second, total, Computation("the money left", money, "-", total.value)),
    )


def _painter(r: Random) -> WordProblem:
    name, thing = r.choice(NAMES), r.choice(("doors", "chairs", "fences", "walls"))
    each, days, pay = r.randint(2, 6), r.randint(2, 5), r.choice((2, 3, 4, 5))
    painted = Computation(f"the number of {thing} painted", each, "×", days)
    earned = Computation("the money earned", painted.value, "×", pay)
    cost = r.randint(3, min(20, earned.value - 1))
    return WordProblem(
        "painter",
        (
            f"{name} paints {each} {thing} a day for {days} days and gets ${pay} for each.",
            f"The paint costs {name} ${cost}.",
        ),
        f"how many dollars {name} has left",
        f"How many dollars does {name} have left?",
        (painted, earned, Computation("the money left after the paint", earned.value, "-", cost)),
    )


def _series(r: Random) -> WordProblem:
    name, each, days = r.choice(NAMES), r.randint(2, 6), r.randint(2, 6)
    rest_days, rest_each = r.randint(2, 5), r.randint(2, 8)
    seen = Computation("the number of episodes watched first", each, "×", days)
    total = seen.value + rest_days * rest_each
    left = Computation("the number of episodes left", total, "-", seen.value)
    return WordProblem(
        "series",
        (
            f"A series has {total} episodes.",
            f"{name} watches {each} episodes a day for {days} days.",
            f"The rest is watched in {rest_days} days, the same number of episodes each day.",
        ),
        f"how many episodes a day {name} watches at the end",
        f"How many episodes a day does {name} watch at the end?",
        (seen, left, Computation("the number of episodes for each remaining day", left.value, "/", rest_days)),
    )


def _wheels(r: Random) -> WordProblem:
    (few, few_wheels), (many, many_wheels) = r.choice(
        ((("bicycles", 2), ("tricycles", 3)), (("scooters", 2), ("cars", 4)), (("tricycles", 3), ("wagons", 4)))
    )
    one, two = r.randint(3, 12), r.randint(2, 9)
    first = Computation(f"the number of wheels of the {few}", one, "×", few_wheels)
    second = Computation(f"the number of wheels of the {many}", two, "×", many_wheels)
    return WordProblem(
        "wheels",
        (
            f"A shop has {one} {few} and {two} {many}.",
            f"The {few} have {few_wheels} wheels each and the {many} have {many_wheels} wheels each.",
        ),
        "how many wheels there are in total",
        "How many wheels are there in total?",
        (first, second, Computation("the total number of wheels", first.value, "+", second.value)),
    )


def _points(r: Random) -> WordProblem:
    (one, two, three), game = r.sample(NAMES, 3), r.choice(("game", "quiz", "match"))
    has, times = r.randint(3, 12), r.choice(tuple(TIMES))
    second = Computation(f"the points of {two}", has, "×", times, "" if times != 2 else "twice means times 2")
    fewer = r.randint(1, min(9, second.value - 2))
    third = Computation(f"the points of {three}", second.value, "-", fewer)
    both = Computation(f"the points of {one} and {two} together", has, "+", second.value)
    return WordProblem(
        "points",
        (
            f"In a {game}, {one} scores {has} points.",
            f"{two} scores {TIMES[times]} as many points as {one}.",
            f"{three} scores {fewer} points fewer than {two}.",
        ),
        "how many points the three score together",
        "How many points do the three of them score together?",
        (second, third, both, Computation("the points of the three together", both.value, "+", third.value)),
    )


def _library(r: Random) -> WordProblem:
    part = r.randint(2, 5)
    books = part * r.randint(3, 12)
    lent = Computation("the number of books lent out", books, "/", part)
    stay = Computation("the number of books that stay", books, "-", lent.value)
    back = r.randint(2, 12)
    return WordProblem(
        "library",
        (
            f"There are {books} books on a shelf of the library.",
            f"In the morning, 1/{part} of them are lent out.",
            f"In the afternoon, {back} books come back.",
        ),
        "how many books are on the shelf now",
        "How many books are on the shelf now?",
        (lent, stay, Computation("the number of books after some come back", stay.value, "+", back)),
    )


UNSEEN_FAMILIES: tuple[Callable[[Random], WordProblem], ...] = (
    _parking,
    _aquarium,
    _cinema,
    _painter,
    _series,
    _wheels,
    _points,
    _library,
)
