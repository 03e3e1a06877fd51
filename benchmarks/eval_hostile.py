"""Grades thousands of hostile answers, and checks that none blocks, crashes or counts as right.

    python benchmarks/eval_hostile.py [--pairs 10000] [--limit 2] [--workers 2] [--seed 0]

Each answer is extracted from an output around it and compared with gold, on the one side or the other. Fails (exit
status 1) when math-verify has a pair for longer than the limit and a second, when the code in this process takes more
than a second for a pair (its own CPU time), when anything is raised, when a hostile answer counts as right, or when
the grader afterwards errs on plain pairs.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track
from rich.table import Table

from drp_hf.answers import extract_answer
from drp_hf.grading import Grader
from drp_hf.math_pool import MathPool, Reply

GRACE = 1.0
"""Seconds over the limit before a pair counts as blocking; a busy machine wakes processes late."""
OWN_LIMIT = 1.0
"""CPU seconds for extraction and exact check together."""
SLOW_SHARE = 0.006
"""Of the pairs, those of `SLOW` kinds: each that runs into the limit costs it and a new process."""
GOLDS = (
    "918273645",
    "\\frac{91}{8273}",
    "(91, 82, 73)",
    "9x + 18y - 273",
    "[9, 18)",
    "\\text{Evelyn}",
    "\\sqrt{918273}",
)
PLAIN = [
    ("540", "540 meters", True),
    ("540", "541", False),
    ("p - q", "-q + p", True),
    ("p - q", "q - p", False),
    ("[0, \\infty)", "x \\ge 0", True),
    ("\\{1, 2\\}", "\\{2, 3\\}", False),
    ("\\int_0^1 x dx", "\\int_0^1 x dx", True),
    ("\\sum_{n=1}^{3} n", "6", True),
]


def _hanging(r: random.Random) -> str:
    top = r.randint(6, 9)
    return r.choice(
        [
            f"\\log_2 9^{{9^{{9^{{{top}}}}}}} + {r.randint(1, 10**6)}",
            f"\\prod_{{n=1}}^{{{r.randint(10**7, 10**9)}}} n",
            f"\\sum_{{n=1}}^{{{top}}} n^{{10^{{10^{{{top}}}}}}}",
            f"|{top}^{{{top}^{{{top}^{{{top}}}}}}}| + \\int_0^1 x dx",
        ]
    )


def _towers(r: random.Random) -> str:
    text = str(r.randint(2, 10))
    for _ in range(r.randint(1, 4)):
        text = f"{r.randint(2, 10)}^{{{text}}}"
    return r.choice([text, text.replace("{", "").replace("}", ""), f"-{text}", f"\\frac{{1}}{{{text}}}"])


def _factorials(r: random.Random) -> str:
    return r.choice(["({}!)!", "{}!" + "!" * r.randint(0, 9), "\\frac{{{}!}}{{x}}", "\\Gamma({})"]).format(
        r.randint(3, 99)
    )


def _nested(r: random.Random) -> str:
    depth, (left, middle, right) = (
        r.choice([3, 20, 50, 120]),
        r.choice(
            [
                ("\\frac{1}{", "2", "}"),
                ("\\sqrt{", "x", "}"),
                ("{", "1", "}"),
                ("(", "x", ")"),
                ("\\left(", "1", "\\right)"),
                ("\\{", "1", "\\}"),
                ("[", "1,2", ")"),
                ("\\sin(", "x", ")"),
                ("1+(", "x", ")^2"),
                ("\\text{", "a", "}"),
                ("x_{", "1", "}"),
                ("\\boxed{", "7", "}"),
                ("\\begin{pmatrix}", "1", "\\end{pmatrix}"),
            ]
        ),
    )
    return left * depth + middle + right * r.choice([depth, depth, depth - 1, depth + 1, 0])


def _giant(r: random.Random) -> str:
    digits = "".join(r.choices("0123456789", k=r.choice([50, 300, 900, 5000])))
    return r.choice(
        ["9" * 5000, digits, f"0.{digits}", f"{digits}/{digits[::-1]}", f"1e{digits[:6]}",
         f"{digits[:200]}^{{{digits[:9]}}}", f"1{',000' * r.randint(1, 240)}", f"\\frac{{{digits[:400]}}}{{7}}",
         f"{digits[:400]} \\times 10^{{{digits[:5]}}}"]
    )  # fmt: skip


def _repeated(r: random.Random) -> str:
    piece = r.choice(
        ["1,", "1 ", "a ", "-", "+", "(", ")", "and ", "or ", ", and ", "x = ", "(1,2) or ", "(1,2) \\cup ",
         "\\pm 1, ", "1:", "0 < ", "x \\le ", "\\frac", "\\sqrt", "^", "_", "{}", "\\\\", "&", "$", "\\text{a}", "**",
         "\\circ", "%", "1/", "\\,", "1.", "hours ", "1 hour ", "five ", "hundred ", "the answer is ", "(A) ",
         "\\{1", "=", "!", "e", ".", "'"]
    )  # fmt: skip
    text = piece * (r.choice([20, 100, 400, 990]) // len(piece) + 1)
    return r.choice([text, f"{text}!", f"1{text}", f"({text})", f"{text}\\"])


def _infinite(r: random.Random) -> str:
    n = r.randint(2, 9)
    return r.choice(
        [
            f"\\sum_{{k=1}}^{{\\infty}} \\frac{{1}}{{k^{n}}}",
            f"\\sum_{{k=0}}^{{\\infty}} \\frac{{(-1)^k {n}^k}}{{k!}}",
            f"\\prod_{{k=1}}^{{\\infty}} (1 - \\frac{{1}}{{k^{n}+1}})",
            f"\\int_0^\\infty x^{n} e^{{-x^{n}}} dx",
            f"\\lim_{{x \\to \\infty}} (1 + \\frac{{{n}}}{{x}})^x",
            f"\\lim_{{n \\to 0}} \\frac{{\\sin({n}n)}}{{n}}",
            "\\infty - \\infty",
            f"{n}/0",
            "0^0",
            f"\\log_{{{n}}} \\log_{{{n}}} {n}^{{{n}^{{{n}}}}}",
            f"\\sin(10^{{{n * 9}}})",
            f"\\sqrt[{10**n}]{{{n}}}",
        ]
    )


def _algebra(r: random.Random) -> str:
    power = r.choice([20, 60, 200, 3000])
    return r.choice(
        [
            f"(x+1)^{{{power}}}",
            f"(x+y+z)^{{{power // 4}}}",
            "+".join(f"x_{{{i}}}" for i in range(r.randint(10, 90))),
            "*".join(f"(x+{i})" for i in range(r.randint(5, 50))),
            "+".join(f"\\frac{{1}}{{x+{i}}}" for i in range(r.randint(2, 12))),
            f"x^{{{10**6}}} + 1 = 0",
            f"\\sin({'x+' * 40}x) = \\cos(x)",
            f"|x-{power}| < |x+{power}|",
            "|" * 20 + "x" + "|" * 20,
            "(((((x)))))",
        ]
    )


def _matrices(r: random.Random) -> str:
    size = r.choice([2, 5, 8, 50])
    rows = (" & ".join(str(r.randint(0, 9)) for _ in range(size)) for _ in range(size))
    return "\\begin{pmatrix}" + " \\\\ ".join(rows) + "\\end{pmatrix}"


def _characters(r: random.Random) -> str:
    ranges = r.choice(
        [(0, 32), (32, 127), (0xA0, 0x2FF), (0x2000, 0x2BFF), (0xD800, 0xDFFF), (0x1F300, 0x1FAFF), (0, 0x10FFFF)]
    )
    text = "".join(chr(r.randint(*ranges)) for _ in range(r.randint(1, 40)))
    return r.choice([text, f"{text}\x00", f"1{text}2", f"\\frac{{{text}}}{{2}}", f"\\text{{{text}}}", f"{text}" * 20])


def _soup(r: random.Random) -> str:
    tokens = (
        "1 2 37 0.5 x y i e \\pi \\infty + - \\cdot / ^ _ { } ( ) [ ] , ; = < > \\le \\in \\cup \\frac \\sqrt \\text{ "
        "\\left( \\right) \\{ \\} ! % ° \\circ \\begin{pmatrix} \\end{pmatrix} & \\\\ | \\pm \\sin \\log \\sum \\int "
        "\\binom \\boxed{ $ ' : or and hours cm A"
    ).split()
    return r.choice(["", " "]).join(r.choices(tokens, k=r.randint(2, 30)))


def _damaged(r: random.Random) -> str:
    text = list(
        r.choice(
            [
                "\\frac{11+9a}{20}",
                "\\left(\\frac{3}{5},\\frac{8}{3}\\right]",
                "\\{1\\pm\\sqrt{5},-2\\}",
                "\\begin{pmatrix} 1/5 \\\\ -18/5 \\end{pmatrix}",
                "x \\in [-2,7]",
                "(-\\infty, 2) \\cup (3, \\infty)",
                "3 hours and 20 minutes",
                "(B) 12 cm^2",
                "5x - 7y + 11z + 4 = 0",
                "1\\frac{4}{5}",
            ]
        )  # fmt: skip
    )
    for _ in range(r.randint(1, 8)):
        at = r.randrange(len(text) + 1)
        text[at : at + r.randint(0, 2)] = r.choices("{}()[]\\^_,.$ 0x-+=/|&!%\n", k=r.randint(0, 2))
    return "".join(text)


KINDS: dict[str, Callable[[random.Random], str]] = {
    "known to hang": _hanging,
    "towers of powers": _towers,
    "factorials": _factorials,
    "nested": _nested,
    "giant numbers": _giant,
    "repeated pieces": _repeated,
    "infinite sums, limits": _infinite,
    "algebra": _algebra,
    "matrices": _matrices,
    "odd characters": _characters,
    "token soup": _soup,
    "damaged answers": _damaged,
}

SLOW = ("known to hang", "infinite sums, limits", "algebra")


@dataclass
class Case:
    """One hostile answer, and what became of it."""

    kind: str
    text: str
    gold: str
    as_gold: bool
    own: float = 0.0
    correct: bool = False
    error: str = ""


def cases(pairs: int, seed: int) -> list[Case]:
    """As many hostile answers as wanted, the same for the same seed."""
    r = random.Random(seed)
    others = [name for name in KINDS if name not in SLOW]
    slow = max(len(SLOW), round(pairs * SLOW_SHARE))
    kinds = [SLOW[i % len(SLOW)] for i in range(slow)] + [others[i % len(others)] for i in range(pairs - slow)]
    r.shuffle(kinds)
    return [Case(kind, KINDS[kind](r), r.choice(GOLDS), r.random() < 0.3) for kind in kinds]


class RecordingPool(MathPool):
    """Remembers every reply."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.replies: list[tuple[dict, Reply]] = []

    def ask(self, request: dict, limit: float) -> Reply:
        reply = super().ask(request, limit)
        self.replies.append((request, reply))
        return reply


def attack(grader: Grader, case: Case) -> None:
    """Extracts and grades one hostile answer."""
    began = time.thread_time()
    try:
        extract_answer(f"<think>{case.text}</think>{case.text}")
        answer = extract_answer(f"<think>Hmm.</think>So the answer is \\boxed{{{case.text}}}.")
        pairs = [(case.text, case.gold)] if case.as_gold else [(case.gold, case.text), (case.gold, answer)]
        case.correct = any(verdict.correct for verdict in grader.grade(pairs))
    except Exception as error:  # Whatever is raised is what is looked for.
        case.error = repr(error)
    case.own = time.thread_time() - began


def run(pairs: int, limit: float, workers: int, seed: int, console: Console, grace: float = GRACE) -> list[str]:
    """Grades hostile answers and prints what became of them.

    Returns:
        What failed, a sentence each.
    """
    todo = cases(pairs, seed)
    pool = RecordingPool(workers)
    began = time.monotonic()
    with Grader(workers, time_limit=limit) as grader, ThreadPoolExecutor(workers) as threads:
        grader.pool = pool
        done = threads.map(lambda case: attack(grader, case), todo)
        for _ in track(done, "hostile answers", total=len(todo), console=console, disable=not console.is_terminal):
            pass
        plain = grader.grade([(gold, predicted) for gold, predicted, _ in PLAIN])
    seconds = time.monotonic() - began
    table = Table("kind", "answers", "slowest (CPU s)", "counted right", "raised")
    for kind in KINDS:
        of_kind = [case for case in todo if case.kind == kind]
        slowest = max((case.own for case in of_kind), default=0.0)
        wrong, errors = sum(case.correct for case in of_kind), sum(bool(case.error) for case in of_kind)
        table.add_row(kind, str(len(of_kind)), f"{slowest:.3f}", str(wrong), str(errors))
    console.print(table)
    request, reply = max(pool.replies, key=lambda asked: asked[1].seconds)
    slowest = reply.seconds
    ended = sum(bool(reply.failure) for _, reply in pool.replies)
    console.print(
        f"{len(todo)} answers in {seconds:.0f} s; math-verify was asked {len(pool.replies)} times, {ended} processes "
        f"were ended; slowest {slowest:.2f} s, limit {limit:g} s and {grace:g} s of grace"
    )
    failures = [f"raised: {case.error} on {case.text[:80]!a}" for case in todo if case.error]
    failures += [f"counted right for {case.gold}: {case.text[:80]!a}" for case in todo if case.correct]
    failures += [f"{case.own:.2f} s of own CPU: {case.text[:80]!a}" for case in todo if case.own > OWN_LIMIT]
    if slowest > limit + grace:
        failures.append(f"math-verify had a pair for {slowest:.2f} s: {ascii(request):.200}")
    for (gold, predicted, right), verdict in zip(PLAIN, plain, strict=True):
        if verdict.correct is not right:
            failures.append(f"afterwards {predicted!r} for {gold!r} counted as {verdict}")
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=2.0, help="seconds for math-verify")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False)
    failures = run(args.pairs, args.limit, args.workers, args.seed, console)
    for failure in failures:
        console.print(f"FAILED {failure}", markup=False)
    if failures:
        sys.exit(1)
    console.print("none blocked, none crashed, none counted as right, and plain answers are still graded right")


if __name__ == "__main__":
    main()
