"""Final answers: find them in a text, and compare them with gold (`grading.py`)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence

from drp_hf import numerals
from drp_hf.answer_kinds import Answer, Choice, Clock, Ratio, Region, Row, is_prose, read, unlabelled
from drp_hf.answer_text import MAX_ANSWER, TEXT_COMMAND, clean, normalise, one_writing, too_large
from drp_hf.exact_check import compare
from drp_hf.grading import answers_match, parses
from drp_hf.plain_numbers import PlainNumber, numbers_equal, read_number

__all__ = ["answers_match", "extract_answer", "parses", "read_number", "stated_answer", "states_answer"]

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_JOINS_BOXES = re.compile(
    r"(?:[^.\n]{0,50}\b(?:and|or)|[ \\)$]{0,8}[,;])(?:[\s,()\\$}]|\b[A-Za-z](?:_\{?\w\}?)?\s?=)*"
)
_SAID = re.compile(
    r"(?:\b(?:final\s+)?answer\s+(?:is|equals|=)|\bfinal\s+answer\b|"
    r"\b(?:correct|right)\s+(?:option|choice)\s+is\b|^[ \t>*#]*answer\b(?=\W*[:：])|"
    r"答案(?:[是为](?![否不])|(?=[\s*]*[:：])))",
    re.IGNORECASE | re.MULTILINE,
)
MENTIONS = 16
"""Of an answer that are looked at, from the last one back, for one that states it."""
# "The answer is correct, as 3 * 4 = 12", and without any value "The answer is given in hours".
_REMARK = re.compile(
    r"(?:(?:also|now|indeed|both|very|quite|completely|clearly|fully) )*(?:(?:in)?correct|right|wrong|(?:in)?valid|"
    r"clear|accurate|reasonable|sensible|plausible|consistent with|helpful|useful|verified|confirmed|"
    r"(?:double-?|re-?)?checked|rounded to \w+ (?:decimal|significant) \w+\W*\Z|"
    r"(?:正确|合理|错误|对|错)的?)\b(?!\W*:)",
    re.IGNORECASE,
)
_REMARK_IF_WORDS = re.compile(
    r"(?:already|asked|based|boxed|calculated|computed|derived|expected|expressed|found|given|in|measured|obtained|"
    r"presented|provided|reported|required|rounded|shown|simplified|stated|written|an? (?:integer|whole number))\b",
    re.IGNORECASE,
)
# "This answer is correct", "The final answer has been checked".
_POINTS = re.compile(r"\b(?:this|that|your|such an)\s+\Z", re.IGNORECASE)
_TELLS = re.compile(r"[ \t]+(?:has|have|makes|matches|agrees|checks|seems|looks)\b")
_NAMES_VALUE = re.compile(r"[\d\\$=]|\*\*")
# All but the asterisks of bold words that answer ("**18** dollars") and are no option ("**B**: 12", "**(B)** 12").
_AFTER_SAID = re.compile(
    r"(?:(?!(?<=[\s:：])\*\*(?!(?:(?i:option|choice) )?\(?[A-J](?:\*\*[.:)]|[.:)]\*\*))"
    r"[^\s*](?:[^*\n.!?。]|[.!?](?![\s*])){0,200}\*\*)[\s:：*=_]|"
    r"(?:therefore|thus|hence|indeed|simply|just|equal to)\b)*",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!\\)[.!?](?=\s|$|\*)|[。！？]")
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_MATH = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+?)(?<!\\)\$(?!\d)", re.DOTALL)
_WHOLE = r"(?:\d{1,3}(?:(?:,|\{,\}|,\\!)\d{3})+(?!\d)|\d+)"
# A number may follow the signs of a language that has no spaces ("一共14个"), but no letter ("x14").
_NUMBER = re.compile(
    r"(?<![^\W぀-ヿ一-鿿가-힣])(?<!\.)(?:(?<=\s)[-−]|(?<![^\s(=:*：于为是])[-−])?(?:\\?[$£€¥]\s?)?[-−]?"
    rf"(?:(?<!:)\d{{1,3}} (?=\d{{1,3}}/\d{{1,3}}(?![\d/])))?{_WHOLE}?(?:\.\d+|(?<=\d))(?:[eE][+-]?\d+)?"
    rf"(?:\s?/\s?{_WHOLE}(?!\d|\.\d))?\s?(?:\\?%)?"
)
_VALUE = re.compile(
    rf"-?\\[dt]?frac\s*\{{-?(?:{_WHOLE}|[\d.]+)\}}\s*\{{(?:{_WHOLE}|[\d.]+)\}}(?:\\?%)?|" + _NUMBER.pattern
)
# "3:30 PM (15:30)" is twice one value. Elsewhere "divisible by 3:17" may give the number after a colon.
_TIME_OR_NUMBER = re.compile(
    r"(?<![^\W぀-ヿ一-鿿가-힣])(?<![.:])\d{1,2}:[0-5]\d(?::[0-5]\d)? ?(?i:[ap]\.?m)\b|(?<=\()\d{1,2}:[0-5]\d(?=\))|"
    + _NUMBER.pattern
)
# "Evelyn, who ran 5 miles": the answer is before the comma.
_ASIDE = re.compile(r"(?<=\w), (?:who|because|since|as|which|so|it|they|for)\b")
# "7 apples, 3 more than 4": the answer comes first, unless it is only worked out then ("20 % of 50, which is 10").
_LEADS = re.compile(
    r"(?: ?[A-Za-z]+(?: [A-Za-z]+){0,2}?|[一-鿿]{1,8})?"
    r"(?:[,;(，；（]| (?:in|per|from|for|because|since|as|with|after|when|if|each)\b)"
    r"(?!.*(?:\bwhich\b|\bor\b|\bequals?\b|\bso\b|\bmakes?\b|\bgives?\b|[:+*/]|或|即|等于|就是))"
)
# "$2$ or $3$" is one answer of two formulas …
_PIECE = re.compile(rf"{_BOLD.pattern}|{_MATH.pattern}", re.DOTALL)
_JOINS = re.compile(r"\s*(?:[,;，；、]\s*(?:(?:and|or)\b\s*)?|(?:and|or)\b\s*|[或和]\s*)")
_ENDS_JOINED = re.compile(
    r"\s*(?:\Z|[,;(，；（])|\s+(?:in|per|from|for|because|since|as|with|after|when|if|each|where|depending|respectively)\b"
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|does|do|did|can|would|will|gives?|makes?|equals?|because|since|so|which|who)\b",
    re.IGNORECASE,
)
# … and what "$10$ divided by $2$, which is $5$" and "$x$ = 5" come to stands at their end.
_WORKED_OUT = re.compile(
    r"\s*(?:(?:percent )?of|divided by|multiplied by|times|plus|minus)\b.*"
    r"(?:\b(?:which|that|this|it) (?:is|equals?|makes?|gives?)\b|\bequals?\b|=)\s*(?=\S)",
    re.IGNORECASE | re.DOTALL,
)
_GOES_ON = re.compile(r"\s*(?:[=∪]|[-−+*/×·÷](?!\*).*=)", re.DOTALL)
# "So she earns 18 dollars (9 eggs at 2 dollars each)": what is in brackets explains the one value before them …
_EXPLAINED = re.compile(
    rf"(?:.*=\s*|[^\d*$\\]*?)(?P<value>(?:\*\*[^*\n]+\*\*|{_MATH.pattern}|{_NUMBER.pattern})"
    r"\*{0,2}[A-Za-z]*(?: [A-Za-z]+){0,6})\*{0,2} ?\((?P<explanation>[^()]*\d[^()]*)\)\D*",
    re.DOTALL,
)
# … unless it works the answer out: "half of 36 apples (18)", "5 dozen (60)", "5 miles each way (which makes 10)".
_UNFINISHED = re.compile(
    r"\b(?:(?<!total )of|half|twice|double|triple|times|by|from|to|than|plus|minus|option|choice|dozens?|scores?|"
    r"pairs?|hundreds?|thousands?|millions?|billions?|percent|squared|cubed|factorial|sin|cos|tan|log|ln)\b.*\(|"
    r"\((?:[^()]*\b)?(?:which|or|equals?|so|makes?|gives?|total)\b",
    re.IGNORECASE | re.DOTALL,
)
_RESTATES = re.compile(r".*=|(?:or|i\.e\.|that is|which is|equal to),? ", re.DOTALL)
_MARKS = re.compile(r"\*\*|(?<!\\)\$|\\[()]")
_OPTION = re.compile(r"(?:(?i:option|choice) )?\(?[A-J]\*{0,2}(?:\)|[.:])\*{0,2} *(?=\w|\W*\d|\W*\\)")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|[一-鿿]")
_COUNTED = re.compile(r"(?: +[A-Za-z]{2,})+\Z")
_SCALED = re.compile(r"\d (?:thousand|million|billion|trillion)s?\b", re.IGNORECASE)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]{1,20}\*?\}")
_HEADING = re.compile(
    r"answer|solution|step|conclusion|verification|total cost$|答案|解答|步骤|"
    r"^(?:i )?hope (?:this|that|it)\b|^thank|^good luck|^let me know",
    re.IGNORECASE,
)
_OPENS_SENTENCE = re.compile(r"(?:^|[.!?)*])\s*\Z", re.MULTILINE)
_PLACES = re.compile(r"\b(?:at|by|for|from|in|of|on|per|with)(?: (?:an?|each|every|her|his|its|the|their))?\s+\Z")


def extract_answer(text: str) -> str | None:
    r"""The final answer of a response or of a whole output.

    Of an output with think tags only what follows the closing tag counts; one that never closes them was cut off, and
    has no answer. Tried in this order, the last occurrence first: `\boxed{…}`, "the answer is …" or "Final answer: …",
    `#### …`, bold text, and else the last number. "This answer is correct" states none, and a mention or bold words
    that state none do not replace those that do. Runs in time linear in the text.

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
    if mention := _mention(text):
        text = text[mention[0] :]
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
    if re.search(rf"(?<!\w){pattern}(?!\w)", one_writing(text), re.IGNORECASE if is_prose(gold) else 0):
        return True
    formulas = [next(filter(None, match.groups())) for match in _MATH.finditer(text)]
    return any(answers_match(gold, part).correct for formula in formulas for part in {formula, formula.split("=")[-1]})


def _boxed(text: str) -> str | None:
    """The last box, and those that a sentence joins to it ("\\boxed{3} or \\boxed{-2}" is "3, -2")."""
    start = text.find("\\boxed")
    start = start if start >= 0 else text.find("\\fbox")
    if start < 0:
        return None
    boxes: list[str] = []
    last_end = 0
    opened: list[re.Match[str]] = []
    for token in _BRACES.finditer(text, start):
        if token[0].endswith("{") and token[0] != "\\{":
            opened.append(token)
        elif token[0] == "}" and opened:
            opening = opened.pop()
            inside = text[opening.end() : token.start()] if len(opening[0]) > 1 else "\\boxed"
            if "\\boxed" in inside:
                continue
            joined = boxes and _JOINS_BOXES.fullmatch(text, last_end, min(opening.start(), last_end + 80))
            boxes = [*boxes[-20:], inside] if joined and opening.start() <= last_end + 80 else [inside]
            last_end = token.end()
    return clean(", ".join(dict.fromkeys(boxes))) if boxes else None


def _said(text: str) -> str | None:
    mention = _mention(text)
    return _from_phrase(mention[1]) if mention else None


def _mention(text: str) -> tuple[int, str] | None:
    """The last "the answer is" that states an answer: its place, and the phrase that follows.

    One that may only remark on an answer ("The answer is correct.") counts where no other states one.
    """
    remark = None
    for place in reversed(deque(_SAID.finditer(text), maxlen=MENTIONS)):
        start = _AFTER_SAID.match(text, place.end()).end()
        phrase = _phrase(text[start : start + MAX_ANSWER]).strip()
        words_alone = not _NAMES_VALUE.search(phrase) and not numerals.spelled(phrase)
        points = _POINTS.search(text[max(0, place.start() - 12) : place.start()])
        remarks = not phrase or _REMARK.match(phrase.lstrip("*")) or (words_alone and _REMARK_IF_WORDS.match(phrase))
        if (points and remarks) or (words_alone and _TELLS.match(text, place.end())):
            continue
        if not remarks and not (points and words_alone):
            # "The answer is left or right. … The answer is right."
            named = remark and words_alone and remark[1] and remark[1].lower() in phrase.lower()
            return remark if named else (place.start(), phrase)
        remark = remark or (place.start(), phrase)
    return remark


def _hashes(text: str) -> str | None:
    place = text.rfind("####")
    if place < 0:
        return None
    line = text[place + 4 :].lstrip(" ").partition("\n")[0]
    # "#### Step 2" is a heading, "#### 42" an answer.
    return clean(line) if line[:1].isdigit() or line[:1] in "-−$\\." and line else None


def _bold(text: str) -> str | None:
    answer = None
    for match in _BOLD.finditer(text):
        inside = match[1].strip()
        if (
            inside.endswith((":", "："))
            or text[match.end() : match.end() + 1] in (":", "：")
            or _HEADING.search(inside)
        ):
            continue
        if not (
            answer and read_number(answer) and _stresses(text[max(0, match.start() - 20) : match.start()], inside)
        ):
            answer = inside
    return _from_phrase(answer) if answer and (re.search(r"\d", answer) or len(answer.split()) <= 3) else None


def _stresses(before: str, inside: str) -> bool:
    """Whether bold words only stress something ("at the **farmers' market**", "**Verified**"), and answer nothing."""
    if _REMARK.match(inside) and _OPENS_SENTENCE.search(before):
        return True
    return inside.islower() and not re.search(r"\d", inside) and _PLACES.search(before) is not None


def _last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    return next(iter(deque(matches, maxlen=1)), None)


def _last_number(text: str) -> str | None:
    found = _last(_TIME_OR_NUMBER.finditer(text, max(0, len(text) - 20_000)))
    return clean(found[0]) if found else None


def _phrase(text: str) -> str:
    """The first sentence, or the displayed formula with which the text begins."""
    first = _MATH.match(text)
    if first and first[0].startswith(("\\[", "$$")):
        return first[0]
    at = first.end() if first else 0
    line = text if text.startswith("\\begin") else text[:at] + text[at:].partition("\n")[0]
    depth = 0
    for end in _SENTENCE_END.finditer(line, at):
        depth += line.count("{", at, end.start()) - line.count("}", at, end.start())
        at = end.start()
        if depth <= 0:
            return line[:at]
    return line


def _from_phrase(phrase: str) -> str | None:
    """The answer in "James runs **540** meters", "$x = 5$", "p - q", "Evelyn"."""
    if option := _OPTION.match(phrase):
        if isinstance(read(phrase[:80].replace("**", "")), Choice):
            return clean(option[0].replace("**", "") + _option_text(phrase[option.end() :]))
    if explained := _explained(phrase):
        return explained
    if first := _PIECE.match(phrase):
        return _from_pieces(phrase, first)
    for pattern in (_BOLD, _MATH):
        inner = _last(pattern.finditer(phrase))
        if inner:
            found = next(group for group in inner.groups() if group is not None)
            return clean(found) if pattern is _MATH else _from_phrase(found.strip())
    if _is_formula(phrase):
        return clean(phrase)
    numbers = list(_TIME_OR_NUMBER.finditer(phrase))
    if aside := _ASIDE.search(phrase):
        if numbers and numbers[0].start() > aside.start():
            return clean(phrase[: aside.start()])
    # Also "1 1/2 cups".
    if sum(len(number[0].split()) for number in numbers) > 1 and _is_one_answer(read(phrase)):
        return clean(phrase)
    if numbers and "=" not in phrase and _LEADS.match(phrase, numbers[0].end()) and not phrase[: numbers[0].start()]:
        return clean(numbers[0][0])
    if numbers and (more := _more_than_a_number(phrase)):
        return clean(more)
    return clean(numbers[-1][0]) if numbers else clean(phrase)


def _from_pieces(phrase: str, first: re.Match[str]) -> str | None:
    """The answer of a phrase that begins with a formula or bold words: these, and what is joined to them."""
    plain = _MARKS.sub("", phrase)
    if result := _WORKED_OUT.match(phrase, first.end()):
        return _from_phrase(phrase[result.end() :])
    if _GOES_ON.match(phrase, first.end()):
        return _from_phrase(plain)
    if _SCALED.search(plain) and read_number(plain):
        return clean(plain)
    pieces = [first]
    while join := _JOINS.match(phrase, pieces[-1].end()):
        if not (piece := _PIECE.match(phrase, join.end())):
            break
        pieces.append(piece)
    if len(pieces) > 1 and _VERB.match(phrase[pieces[-1].end() :].lstrip()):
        pieces.pop()  # "$5$, and $6$ is too many"
    inside = [next(group for group in piece.groups() if group is not None).strip() for piece in pieces]
    if len(pieces) > 1 and _ENDS_JOINED.match(phrase, pieces[-1].end()):
        if not _are_equal(inside):
            return clean(_MARKS.sub("", phrase[: pieces[-1].end()]))
    elif (rest := phrase[first.end() :]).strip() and not _VERB.search(_PIECE.sub("", phrase)):
        found = read(plain)
        if isinstance(found, Row):
            if re.search(r"\b(?:and|or)\b", rest) and _is_one_answer(found) and not _are_equal(found.items):
                return clean(plain)
        elif re.search(r"\d", rest) and _is_one_answer(found):
            return clean(plain)
    return _from_phrase(inside[0]) if first[1] else clean(inside[0])


def _are_equal(items: Sequence[str]) -> bool:
    """Whether answers are one in several writings ("1/2 or 0.5")."""
    return all(not too_large(item) and compare(items[0], item) for item in items)


def _is_formula(phrase: str) -> bool:
    """Whether there is no word in a phrase."""
    return not _WORD.search(_ENVIRONMENT.sub("", TEXT_COMMAND.sub("", phrase)))


def _more_than_a_number(phrase: str) -> str | None:
    r"""The formula in "25\pi square units", and "1.5 million" as it is; None of any other phrase."""
    formula = _COUNTED.sub("", phrase)
    if "=" not in formula and re.search(r"\\[A-Za-z]|\^", formula) and _is_formula(formula):
        return formula
    return phrase if _SCALED.search(phrase) and read_number(phrase) else None


def _option_text(text: str) -> str:
    """What an option stands for, without the words around it if it has one value."""
    one = len(_NUMBER.findall(text)) == 1 or _MATH.search(text) or _BOLD.search(text)
    return (_from_phrase(text) if one else None) or text


def _explained(phrase: str) -> str | None:
    """The value in "18 dollars (9 eggs at 2 dollars each)", and both in "3 hours (180 minutes)"."""
    match = _EXPLAINED.fullmatch(phrase) if "(" in phrase else None
    if match is None or not _WORD.search(TEXT_COMMAND.sub("", phrase)):
        return None
    twice = _MARKS.sub("", f"{match['value']} ({_restated(match['explanation'])})")
    if read_number(twice):
        return clean(twice)
    return None if _UNFINISHED.search(phrase) else _from_phrase(match["value"])


def _restated(explanation: str) -> str:
    """What an explanation such as "that is, 180 minutes" or "3 * 60 = 180 minutes" arrives at."""
    restates = _RESTATES.match(explanation)
    return explanation[restates.end() :] if restates else explanation


def _is_one_answer(found: Answer) -> bool:
    """Whether a phrase with several numbers is one answer ("5 feet 6 inches", "1, 2 and 3") and no sentence."""
    if isinstance(found, Row):
        return all(isinstance(read(item), PlainNumber | Choice) for item in map(unlabelled, found.items))
    return isinstance(found, PlainNumber | Clock | Choice | Region | Ratio)
