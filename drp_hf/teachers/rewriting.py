"""Makes a kept sentence shorter without changing what it says: fillers, announcements and asides go."""

from __future__ import annotations

import re

from drp_hf.teachers.quantities import read

_FILLER = re.compile(
    r"(?:(?:okay|ok|alright|all right|hmm+|hm|wait|oh|ah|hold on)\b[\s,.!…:;—-]*(?:(?:but|no|so wait)\b,?\s+)?"
    r"|(?:well|right|yeah|yes|yep|yup|no|actually|let's see(?: here)?|let me see|let me think|i think"
    r"|i see|i guess|got it"
    r"|great|good|sure|perfect|correct|exactly|basically|honestly|you know|again|of course|indeed|in fact"
    r"|to be precise"
    r"|if i'm not mistaken|if i recall correctly|that makes sense|makes sense)(?:[,!…:;—]+|\.(?=\s))\s+"
    r"|(?:i think|i believe|i guess|i see|it seems|it looks like|seems like)(?: that)?\s+)",
    re.IGNORECASE,
)
_CONNECTIVE = re.compile(r"(?:so|but|and|then|now)\b,?\s+", re.IGNORECASE)
# "Let me calculate that: 20 ÷ 4 = 5": the announcement goes.
_ANNOUNCEMENT = re.compile(
    r"(?:(?:so|now|then|and|okay|first),? )*(?:let me|let's|i(?:'ll| can| will| need to| should| have to)"
    r"|we(?:'ll| can| need to|"
    r" should)) (?:just )?(?:begin|start|do|calculate|compute|add|write|find|figure|work|see|check|set"
    r"|subtract|multiply|divide|plug)\b"
    r"[^:\d=]{0,60}:\s+(?=\S)",
    re.IGNORECASE,
)
_SOURCE = re.compile(
    r"(?:so |now |next |then |also |and |but )?,? ?(?:the |this )?(?:problem"
    r"|question)(?: statement)? (?:also )?(?:says|states|mentions|tells us|said)"
    r"(?: that)?,? (?=[a-z0-9])",
    re.IGNORECASE,
)
_LET_ME = re.compile(r"(?:so,? |then,? )?let me (?:just )?(?:do|compute|calculate) (?=[\d$(])", re.IGNORECASE)
_TAG = re.compile(r",?\s+(?:right|correct|okay|yes|no|huh|isn't it|doesn't it)\?(?=\s*$)", re.IGNORECASE)
_ASIDE = re.compile(
    r"\s*\((?:which|since|because|as|assuming|i think|not|just|given|again|i'm|this|that|it|like"
    r"|though)\b[^()\d=]{0,160}\)",
    re.IGNORECASE,
)
_ANY_ASIDE = re.compile(r"\s*\([A-Za-z][^()\d=]{2,160}\)")
_MIDDLE = re.compile(
    r",\s+(?:i think|i guess|i believe|right|of course|you know|again|actually|basically|obviously)(?=[,.])", re.I
)
_HARD_OPENING = re.compile(
    r"(?:(?:so|then|now|and|but|therefore|thus|hence|first|firstly|second|secondly|third|next|finally"
    r"|lastly|similarly|also"
    r"|in that case|after that|to start|to begin|from there|that means|this means|which means"
    r"|that would be|that's|meaning)\b(?:,| that(?! (?:is|was|would|will)\b)(?!'s))?\s+)+",
    re.IGNORECASE,
)
_HARD_CLAUSE = re.compile(r"^[^\d,.:=\n]{12,200},\s+(?=[^,]*\d)")
_HEDGE = re.compile(r"\b(?:should|would|must|will|could) be\b")


_SIDES = re.compile(r"(\s*[=≈]\s*)")
# Arithmetic and nothing else: numbers, operators, brackets, LaTeX fractions.
_ARITHMETIC = re.compile(r"(?:\\[dt]?frac|\\times|\\cdot|\\div|\\left|\\right|\\?[$%,;!]|[-\d\s.()\[\]{}+*/×·⋅÷–−])+")
# "40 times 0.6 is like 40 times 6 tenths, which is 24": said twice.
_LIKE = re.compile(
    r",? (?:is|which is|that's) (?:like|the same(?: thing)? as) [^,.=;:]{3,60}(?=,? (?:which is|is) \$?\d|\.?$)"
)
_OPERATOR = re.compile(r"\d.*?[-+*/×·⋅÷–−\\{].*?\d", re.DOTALL)

_DISPLAYED = re.compile(r"\\[\[(]|\\begin|\$\$")
_FORMULA = re.compile(rf"(?:{_ARITHMETIC.pattern}|=)+")
# "I need to find out how many …", "let's try to determine the …", "the question is asking what …"
_SEEKING = re.compile(
    r"(?:(?:i|we)(?:'m|'re| am| are)? (?:(?:just|need|have|want|trying|supposed|going) )+to |(?:i|we) should "
    r"|(?:let me|let's) (?:try to )?"
    r"|the (?:problem|question|task|goal) (?:is |here |asks |asking |wants |me |us |for |to )*)"
    r"(?:(?:find out|find|figure out|determine|work out|calculate|compute) (?=\w)"
    r"|(?:(?:think about|know|see) )?(?=(?:how|what|the|which|when|where|who)\b))",
    re.IGNORECASE,
)
_LONGEST = 2000
"""Characters; what is longer is no sentence."""
_MOST_SIDES = 20


def tidy(text: str, hard: bool = False, ending: bool = False) -> str:
    """Shortens one sentence.

    Args:
        text: the sentence.
        hard: also drop connectives and lead-in clauses.
        ending: it is the last one, which keeps its "So" or "Therefore".

    Returns:
        The sentence without surrounding white space; no number is added, and it is never longer.
    """
    original = text.strip()
    if len(original) > _LONGEST:
        return original
    text = original
    text = _strip_front(text)
    text = _TAG.sub(".", text)
    text = _MIDDLE.sub("", text)
    text = (_ANY_ASIDE if hard else _ASIDE).sub(lambda aside: aside[0] if read(aside[0]).values else "", text)
    if hard:
        if not ending:
            text = _HARD_OPENING.sub("", text, count=1) if _HARD_OPENING.match(text) else text
        text = _HARD_CLAUSE.sub("", text)
    if not re.search(r"\w", text):
        return original
    return _capitalise(text) if text != original else original


def fewer_sides(text: str, known: set[float]) -> str:
    """Leaves out what only rewrites the side before it with numbers that nobody knows: 6 * 45 = 240 + 30 = 270.

    Args:
        text: a sentence.
        known: the numbers given and stated before it.

    Returns:
        The sentence with fewer sides, its computations of the same value.
    """
    if len(text) > _LONGEST or text.count("=") > _MOST_SIDES:
        return text
    shorter = _LIKE.sub("", text)
    if shorter != text and _same_results(text, shorter):
        text = shorter
    parts = _SIDES.split(text)
    at = 2
    while at < len(parts) - 2:
        shorter = "".join(parts[: at - 1] + parts[at + 1 :])
        if _rewrites(parts[at]) and not read(parts[at]).values <= known and _same_results(text, shorter):
            del parts[at - 1 : at + 1]
            text = shorter
        else:
            at += 2
    return text


def first_side(text: str) -> str:
    """Leaves out the last side of a computation without result: "120 * (1 + 0.6) = 120 * 1.6"."""
    head, sign, side = text.rpartition("=")
    return head if sign and _rewrites(side) and _same_results(text, head) else text


def _rewrites(side: str) -> bool:
    return bool(_ARITHMETIC.fullmatch(side) and _OPERATOR.search(side))


def _same_results(text: str, shorter: str) -> bool:
    before, after = ([each for each in read(side).equations if each.operators] for side in (text, shorter))
    same = [(e.value, e.stated, e.exact) for e in before] == [(e.value, e.stated, e.exact) for e in after]
    return bool(before) and same and all(each.exact for each in before)


def _strip_front(text: str) -> str:
    while True:
        connective = _CONNECTIVE.match(text)
        filler = _FILLER.match(text, connective.end() if connective else 0) or _FILLER.match(text)
        if filler and filler.end() < len(text):
            # "So, hmm, 3 × 4" keeps its "So"; "Wait, but 3 × 4" does not keep its "but".
            keep = text[: filler.start()] if filler.start() and text[:2].lower() == "so" else ""
            text = keep + text[filler.end() :]
            continue
        announcement = _ANNOUNCEMENT.match(text)
        if announcement and announcement.end() < len(text):
            text = text[announcement.end() :]
            continue
        lead = _LET_ME.match(text) or _SOURCE.match(text)
        if lead and lead.end() < len(text):
            text = text[lead.end() :]
            continue
        return text


def _capitalise(text: str) -> str:
    # A single small letter is a variable, not a word.
    return text[0].upper() + text[1:] if text[:1].islower() and text[1:2].isalpha() else text


def formulas(text: str) -> str | None:
    """The formulas of a sentence, one after the other ("Half of it, 24 / 2 = 12, is left." gives "24 / 2 = 12.").

    Args:
        text: the sentence.

    Returns:
        None where its computations are not all written as formulas, or it has none.
    """
    if len(text) > _LONGEST or _DISPLAYED.search(text):
        return None
    runs = (run.group().strip(" \t\n.,;!") for run in _FORMULA.finditer(text))
    found = [run for run in runs if _OPERATOR.search(run.partition("=")[0]) and run.partition("=")[2].strip()]
    stated = sum(equation.stated for equation in read(text).equations)
    return f"{', '.join(found)}." if found and len(found) == stated else None


def goal(text: str) -> str | None:
    """What is to be found, shortly ("I need to find out how many are left." gives "Find how many are left.").

    Args:
        text: a sentence that says so.

    Returns:
        None where it says so in other words.
    """
    seeking = _SEEKING.match(text)
    return f"Find {text[seeking.end() :]}" if seeking else None
