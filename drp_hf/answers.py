r"""Final answers: find them in a text, and compare them with gold.

A comparison has two independent halves. math-verify understands mathematics but can hang or ask for all the memory
there is, so it runs in a process of its own that is ended after `TIME_LIMIT` seconds. The numeric check reads plain
numbers (`1,000`, `27.0`, `3/4`, `\frac{3}{4}`, `70\%`, `\$5.50`, `240\text{ ways}`) as exact fractions.

When both halves speak and differ, the verdict says so (`disagreement`) and the numeric check decides: it speaks only
where both sides are plain numbers, and then it is exact, while math-verify rounds to six decimals. Where the numeric
check is silent math-verify decides; where both are silent the answer counts as wrong.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from drp_hf import numerals

TIME_LIMIT = 10.0
"""Seconds math-verify gets for one comparison."""
START_LIMIT = 120.0
"""Seconds its process gets to start."""
MAX_ANSWER = 1000
"""Characters; nothing longer is an answer."""
MAX_BRACKETS = 60
"""Opening brackets and braces; what has more is no answer, and deep nesting stalls math-verify's parser."""


# ---------------------------------------------------------------------------------------------------- extraction

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_SAID = re.compile(
    r"(?:\b(?:final\s+)?answer\s+(?:is|equals|=)|\bfinal\s+answer\b|^[ \t>*#]*answer\b(?=\W*:))",
    re.IGNORECASE | re.MULTILINE,
)
_AFTER_SAID = re.compile(r"(?:[\s:*=_]|(?:therefore|thus|hence|indeed|simply|just|equal to)\b)*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<!\\)[.!?](?=\s|$|\*)|[。！？]")
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_MATH = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+?)(?<!\\)\$(?!\d)", re.DOTALL)
_NUMBER = re.compile(
    r"(?<![\w.])(?:(?<=\s)[-−]|(?<![^\s(=:*])[-−])?(?:\\?[$£€¥]\s?)?[-−]?"
    r"(?:\d{1,3}(?:(?:,|\{,\}|,\\!)\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:[eE][+-]?\d+)?(?:\s?/\s?\d+(?![\d.]))?\s?(?:\\?%)?"
)
_VALUE = re.compile(r"-?\\[dt]?frac\s*\{-?[\d.]+\}\s*\{[\d.]+\}(?:\\?%)?|" + _NUMBER.pattern)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]{1,20}\*?\}")
_TEXT_COMMAND = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf|textit|operatorname)\s*\{([^{}]*)\}")
_HEADING = re.compile(r"answer|solution|step|conclusion|verification|total cost$", re.IGNORECASE)


def extract_answer(text: str) -> str | None:
    r"""The final answer of a response or of a whole output.

    Of an output with think tags only what follows the closing tag counts; one that never closes them was cut off, and
    has no answer. Tried in this order, the last occurrence first: `\boxed{…}`, "the answer is …" or "Final answer: …",
    `#### …`, bold text, and else the last number. Runs in time linear in the text.

    Returns:
        The answer as written, without delimiters, trailing full stop or the words around a number; None without one.
    """
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    elif "<think>" in text:
        return None
    return stated_answer(text) or _bold(text) or _last_number(text)


def stated_answer(text: str) -> str | None:
    """The answer that a text expressly calls so: boxed, after "the answer is" or after `####`."""
    return _boxed(text) or _said(text) or _hashes(text)


def states_answer(text: str, gold: str) -> bool:
    """Whether an ending ("So 540 meters.", "Thus \\(x = 540\\).") states the gold answer.

    What it expressly calls the answer must equal gold, or name it among other things ("the answer is 540 meters in 7
    days"). Without such words gold must occur as a value: a plain number in any writing, else a formula or a word.

    Args:
        text: the last sentences of a reasoning.
        gold: the gold answer.
    """
    boxed = _boxed(text)
    if boxed is not None:
        return answers_match(gold, boxed).correct
    said = _last(_SAID.finditer(text))
    if said is not None:
        text = text[said.start() :]
    return _occurs(gold, text) or answers_match(gold, extract_answer(text)).correct


def _occurs(gold: str, text: str) -> bool:
    number = read_number(gold)
    if number is not None:
        written = (read_number(match[0]) for match in _VALUE.finditer(text))
        return str(abs(number.value)) in numerals.spelled(text) or any(
            value is not None and numbers_equal(number, value) for value in written
        )
    # Spacing inside a formula is free, and "p-q" does not occur in "3p-q".
    pattern = r"\s*".join(map(re.escape, normalise(gold)))
    if re.search(rf"(?<!\w){pattern}(?!\w)", _plain_latex(text), re.IGNORECASE if _prose(gold) else 0):
        return True
    formulas = [next(filter(None, match.groups())) for match in _MATH.finditer(text)]
    return any(answers_match(gold, part).correct for formula in formulas for part in {formula, formula.split("=")[-1]})


def _boxed(text: str) -> str | None:
    start = text.find("\\boxed")
    start = start if start >= 0 else text.find("\\fbox")
    if start < 0:
        return None
    answer, opened = None, []
    for token in _BRACES.finditer(text, start):
        if token[0].endswith("{") and token[0] != "\\{":
            opened.append(token)
        elif token[0] == "}" and opened:
            opening = opened.pop()
            if len(opening[0]) > 1:
                inside = text[opening.end() : token.start()]
                answer = inside if "\\boxed" not in inside else answer
    return _clean(answer) if answer is not None else None


def _said(text: str) -> str | None:
    place = _last(_SAID.finditer(text))
    if place is None:
        return None
    start = _AFTER_SAID.match(text, place.end()).end()
    return _from_phrase(_phrase(text[start : start + MAX_ANSWER]))


def _hashes(text: str) -> str | None:
    place = text.rfind("####")
    if place < 0:
        return None
    line = text[place + 4 :].lstrip(" ").partition("\n")[0]
    # "#### Step 2" is a heading, "#### 42" an answer.
    return _clean(line) if line[:1].isdigit() or line[:1] in "-−$\\." and line else None


def _bold(text: str) -> str | None:
    answer = None
    for match in _BOLD.finditer(text):
        inside = match[1].strip()
        if not inside.endswith(":") and text[match.end() : match.end() + 1] != ":" and not _HEADING.search(inside):
            answer = inside
    return _from_phrase(answer) if answer and (re.search(r"\d", answer) or len(answer.split()) <= 3) else None


def _last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    return next(iter(deque(matches, maxlen=1)), None)


def _last_number(text: str) -> str | None:
    found = _last(_NUMBER.finditer(text, max(0, len(text) - 20_000)))
    return _clean(found[0]) if found else None


def _phrase(text: str) -> str:
    """The first sentence, or the displayed formula with which the text begins."""
    if math := _MATH.match(text):
        return math[0]
    line = text if text.startswith("\\begin") else text.partition("\n")[0]
    depth, at = 0, 0
    for end in _SENTENCE_END.finditer(line):
        depth += line.count("{", at, end.start()) - line.count("}", at, end.start())
        at = end.start()
        if depth <= 0:
            return line[:at]
    return line


def _from_phrase(phrase: str) -> str | None:
    """The answer in "James runs **540** meters", "$x = 5$", "p - q", "Evelyn"."""
    for pattern in (_BOLD, _MATH):
        inner = _last(pattern.finditer(phrase))
        if inner:
            found = next(group for group in inner.groups() if group is not None)
            return _clean(found) if pattern is _MATH else _from_phrase(found.strip())
    if not _WORD.search(_ENVIRONMENT.sub("", _TEXT_COMMAND.sub("", phrase))):
        return _clean(phrase)
    numbers = [match[0] for match in _NUMBER.finditer(phrase)]
    return _clean(numbers[-1]) if numbers else _clean(phrase)


def _clean(answer: str) -> str | None:
    answer = answer.strip().strip("*_` \t\n")
    for left, right in (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$")):
        if len(answer) > len(left) + len(right) and answer.startswith(left) and answer.endswith(right):
            if not answer[: -len(right)].endswith("\\"):
                answer = answer[len(left) : -len(right)].strip()
    answer = answer.rstrip(" .,;:?。")
    return answer if answer and len(answer) <= MAX_ANSWER else None


# -------------------------------------------------------------------------------------------------- plain numbers

_DIGITS = r"(?:\d+(?:\.\d*)?|\.\d+)"
_GROUPED = re.compile(r"(?<![\d.])(\d{1,3}(?:,\d{3})+)(?![\d,])")
_FRAC = re.compile(rf"^(-?)(\d+(?=\\))?\\frac(?:\{{(-?{_DIGITS})\}}|(\d))(?:\{{(-?{_DIGITS})\}}|(\d))$")
_SLASH = re.compile(rf"^(-?)(?:(\d+) )?({_DIGITS})/({_DIGITS})$")
_DECIMAL = re.compile(rf"^(-?)({_DIGITS})(?:[eE]([+-]?\d{{1,3}}))?$")
_POWER_OF_TEN = re.compile(rf"^(-?{_DIGITS})(?:\\times|\\cdot|×)10\^\{{?([+-]?\d{{1,3}})\}}?$")
_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_UNIT = re.compile(
    r"(?:(?<=[\d}]) *| +)"
    r"(?:\\?%|°|\^\{?\\circ\}?|[A-Za-z][A-Za-z./°²³]+(?: [A-Za-z./°²³]+){0,5}|[mgsh])(?:\^\{?\d\}?)?$"
)
_NO_UNIT = re.compile(r"^ *(?:pi|sqrt|dozens?|scores?|pairs?|hundreds?|or|and|to|mod|base|e|i|x)\b", re.IGNORECASE)


@dataclass(frozen=True)
class PlainNumber:
    """A number as it was written.

    Args:
        value: exact value, a per cent sign left aside.
        percent: whether it carried a per cent sign.
        slack: how far another number may lie from it: 0 for integers and fractions, a millionth of the value for
            decimals, half a unit in the last place for scientific notation (which is rounded by nature).
    """

    value: Fraction
    percent: bool
    slack: Fraction


def read_number(text: str) -> PlainNumber | None:
    """Reads a plain number with its currency, unit or per cent sign; None for anything else."""
    if len(text) > 200:
        return None
    text = _TEXT_COMMAND.sub(r" \1 ", text.strip())
    for old, new in (
        ("\\left", ""),
        ("\\right", ""),
        ("\\!", ""),
        ("{,}", ","),
        ("\\,", " "),
        ("\\ ", " "),
        ("~", " "),
    ):
        text = text.replace(old, new)
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("−", "-").replace("–", "-")
    text = re.sub(r"^(-?)\s*(?:\\?[$£€¥]|USD|Rs\.?)\s*", r"\1", text.strip().rstrip(" .,;:"))
    percent = scale = None
    if unit := _UNIT.search(text):
        word = unit[0].strip()
        if _NO_UNIT.match(unit[0]):
            return None
        percent = word in ("%", "\\%") or word.lower() in ("percent", "per cent")
        scale = _SCALES.get(word.split()[0].lower().rstrip("s")) if word else None
        text = text[: unit.start()]
    text = re.sub(r"(?<=\d) (?=\d{3}(?: |$))", "", text.strip()) if "/" not in text else text.strip()
    text = _GROUPED.sub(lambda match: match[1].replace(",", ""), text)
    text = re.sub(r"\\frac\s+(?=[\d{])", r"\\frac", text)
    number = _value(text)
    if number is None:
        return None
    value, slack = number
    return PlainNumber(value * (scale or 1), bool(percent), slack * (scale or 1))


def _value(text: str) -> tuple[Fraction, Fraction] | None:
    if match := _DECIMAL.match(text):
        value = Fraction(match[2] if match[3] is None else f"{match[2]}e{match[3]}")
        slack = Fraction(0)
        if match[3] is not None:
            slack = Fraction(10) ** (int(match[3]) - len(match[2].partition(".")[2])) / 2
        elif "." in match[2]:
            slack = value / 10**6
        return (-value if match[1] else value), slack
    if match := _FRAC.match(text):
        sign, whole, over, under = match[1], match[2], match[3] or match[4], match[5] or match[6]
    elif match := _SLASH.match(text):
        sign, whole, over, under = match.groups()
    elif match := _POWER_OF_TEN.match(text.replace(" ", "")):
        return Fraction(match[1]) * Fraction(10) ** int(match[2]), Fraction(0)
    else:
        return None
    if not Fraction(under):
        return None
    value = int(whole or 0) + Fraction(over) / Fraction(under)
    return (-value if sign else value), Fraction(0)


def numbers_equal(gold: PlainNumber, predicted: PlainNumber) -> bool:
    """Whether two plain numbers are the same within both slacks; 70 and 0.7 both equal 70 %."""
    slack = max(gold.slack, predicted.slack)
    values = {predicted.value}
    if predicted.percent and not gold.percent:
        values.add(predicted.value / 100)
    golds = {gold.value}
    if gold.percent and not predicted.percent:
        golds.add(gold.value / 100)
    return any(abs(a - b) <= slack for a in golds for b in values)


# ------------------------------------------------------------------------------------------------------- verdicts


@dataclass(frozen=True)
class Verdict:
    """What came of comparing an answer with gold.

    Args:
        correct: the decision.
        math_verify: what math-verify says; None where it was not asked, could not parse one side or ran out of time.
        numeric: what the numeric check says; None where one side is no plain number.
        disagreement: both spoke, and differ.
        note: how the decision was reached, where that is not plain.
    """

    correct: bool
    math_verify: bool | None = None
    numeric: bool | None = None
    disagreement: bool = False
    note: str = ""


def normalise(answer: str) -> str:
    r"""Form in which equal texts are equal answers: no delimiters, `\text`, spacing, bracket sizes."""
    return re.sub(r"[\s~]", "", _plain_latex(_clean(answer) or "")).rstrip(".")


def _plain_latex(text: str) -> str:
    text = _TEXT_COMMAND.sub(r"\1", text)
    for old, new in (
        ("\\left", ""),
        ("\\right", ""),
        ("\\dfrac", "\\frac"),
        ("\\tfrac", "\\frac"),
        ("{,}", ","),
        ("$", ""),
    ):
        text = text.replace(old, new)
    return re.sub(r"\\[,!; ]", "", text)


_LETTERS = re.compile(r"[A-Za-z]+(?:(?:[ '’\-]|[.,] )[A-Za-z]+)*\Z")
_FUNCTION = re.compile(r"\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|infty)\b")


def _letters(answer: str) -> str | None:
    """An answer made of letters alone, in lower case and without `\\text` or brackets ("(C)"), else None."""
    plain = _TEXT_COMMAND.sub(r"\1", answer).strip().rstrip(".")
    if plain.startswith("(") and plain.endswith(")") and len(plain) == 3:
        plain = plain[1]
    return plain.lower() if len(plain) <= 200 and _LETTERS.match(plain) else None


def _prose(answer: str) -> bool:
    """Whether an answer is a word or words ("Evelyn", `\\text{(C)}`) rather than a product of letters ("ab")."""
    letters = _letters(answer)
    if letters is None or _FUNCTION.search(letters):
        return False
    return "\\" in answer or re.search(r"[a-z]{3}", letters) is not None


@lru_cache(maxsize=65_536)
def answers_match(gold: str, predicted: str | None) -> Verdict:
    """Compares a predicted answer with gold (in this order: the comparison is not symmetric).

    Equal texts, and words, are decided without math-verify; see the module's docstring for the rest.
    """
    if predicted is None or not predicted.strip():
        return Verdict(False, note="no answer")
    if _too_large(gold) or _too_large(predicted):
        return Verdict(False, note="too long or too nested for an answer")
    gold_number, predicted_number = read_number(gold), read_number(predicted)
    both = gold_number is not None and predicted_number is not None
    if (same := normalise(gold)) and same == normalise(predicted):
        return Verdict(True, numeric=True if both else None, note="same text")
    # math-verify reads words as products of letters, where "listen" equals "silent".
    if _prose(gold) or _prose(predicted):
        return Verdict(_letters(gold) is not None and _letters(gold) == _letters(predicted), note="compared as words")
    numeric = numbers_equal(gold_number, predicted_number) if both else None
    reply = _WORKER.ask({"gold": gold, "predicted": predicted})
    verified = reply["equal"] if reply else None
    note = "" if reply else "math-verify ran out of time"
    if numeric is not None and verified is not None and numeric != verified:
        return Verdict(numeric, verified, numeric, True, "math-verify and the numeric check disagree")
    decided = numeric if numeric is not None else bool(verified)
    return Verdict(
        decided, verified, numeric, note=note or ("" if verified is not None else "math-verify cannot parse it")
    )


def _too_large(answer: str) -> bool:
    return len(answer) > MAX_ANSWER or sum(map(answer.count, "({[")) > MAX_BRACKETS


@lru_cache(maxsize=65_536)
def parses(gold: str) -> bool:
    """Whether a gold answer can be compared with anything: a number, words, or what math-verify can parse."""
    if _too_large(gold) or not normalise(gold):
        return False
    if read_number(gold) is not None or _prose(gold):
        return True
    reply = _WORKER.ask({"gold": gold})
    return bool(reply and reply["parsed"])


# -------------------------------------------------------------------------------------------- math-verify's process


class _Worker:
    """One process that runs `math_worker.py`, started when first asked and replaced when it hangs or dies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask(self, request: dict) -> dict | None:
        """The reply, or None after `TIME_LIMIT` seconds or when the process died of the request."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                reply = self._replies.get(timeout=TIME_LIMIT)
            except (queue.Empty, OSError):
                reply = ""
            if not reply:
                self._stop()
                return None
            return json.loads(reply)

    def _start(self) -> None:
        # A plain subprocess: it needs no importable __main__, and nothing of a parent full of threads is forked. -P
        # keeps the modules beside the file from hiding those of the same name elsewhere.
        command = [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, text=True, encoding="utf-8", **pipes)
        self._replies = queue.SimpleQueue()
        threading.Thread(target=_forward, args=(self._process.stdout, self._replies), daemon=True).start()
        try:
            ready = self._replies.get(timeout=START_LIMIT)
        except queue.Empty:
            ready = ""
        if not ready:
            self._stop()
            raise RuntimeError("The process for math-verify did not start; is math-verify installed?")

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process = None

    def close(self) -> None:
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """After a fork: the process and the lock belong to the parent."""
        self.__init__()


def _forward(stream, replies: queue.SimpleQueue) -> None:
    with stream:
        for line in stream:
            replies.put(line)
    replies.put("")


_WORKER = _Worker()
atexit.register(_WORKER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WORKER.forget)
