"""Makes a kept sentence shorter without changing what it says: fillers, announcements and asides go."""

from __future__ import annotations

import re

from drp_hf.teachers.quantities import read

# "I think that means 5" keeps its "that".
_THAT = (
    r"(?: that(?!'s)(?! (?!(?:this|his|its|as|always)\b)(?:is|was|would|will|might|may|can|could|should|must"
    r"|[a-z]+[^\Ws]s)\b))?"
)
_FILLER = re.compile(
    r"(?:(?:(?:okay|ok|alright|hmm+|hm|oh|ah)\b(?=[\s,.!…:;—])|all right\b(?=[,.!…:;—])"
    r"|(?:wait|hold on)(?: (?:a|one) (?:second|sec|minute|moment))?\b(?=[,.!…:;—])|wait(?=\s+(?:no|but|so)\b))"
    # The minus of "Wait, -3 + 5" and the point of "Hmm, .5" are no punctuation.
    r"(?:\s*-+(?=\s))?(?:[\s,!…:;—]|\.(?!\d))*(?:(?:but\b,?|no(?:,|(?= wait\b))|so wait\b,?)\s+)?"
    r"|(?!(?:right|yes|no|good|correct):)(?:well|right|yeah|yes|yep|yup|no|actually|let's see(?: here)?|let me see"
    r"|let me think|i think|i see|i guess|got it"
    r"|great|good|sure|perfect|correct|exactly|basically|honestly|you know|again|of course|indeed|in fact"
    r"|to be precise"
    r"|if i'm not mistaken|if i recall correctly|that makes sense|makes sense)(?:[,!…:;—]+|\.(?=\s))\s+"
    rf"|(?:i think|i believe|i guess|i see(?! an?\b)|it (?:seems|looks) like|it seems|seems like){_THAT}\s+"
    r"(?!(?:of|about|in|to|through|so|as|how|why|what|not|unlikely|possible|impossible)\b))",
    re.IGNORECASE,
)
_CONNECTIVE = re.compile(r"(?:so|but|and|then|now)\b,?\s+", re.IGNORECASE)
# "Let me calculate that: 20 ÷ 4 = 5": the announcement goes.
_ANNOUNCEMENT = re.compile(
    r"(?:(?:so|now|then|and|okay|first),? )*(?:let me|let's|i(?:'ll| can| will| need to| should| have to)"
    r"|we(?:'ll| can| need to|"
    r" should)) (?:just )?(?:begin|start|do|calculate|compute|add|write|find|figure|work|see|check|set"
    r"|subtract|multiply|divide|plug)\b"
    r"[^:\d=]{0,60}(?<!\s):\s+(?=\S)",
    re.IGNORECASE,
)
_SOURCE = re.compile(
    r"(?:so |now |next |then |also |and |but )?,? ?(?:the |this )?(?:problem"
    r"|question)(?: statement)? (?:also )?(?:says|states|mentions|tells us|said)"
    r"(?: that)?,? (?!that\b|[a-z]+ly\b)(?=[a-z0-9])",
    re.IGNORECASE,
)
_LET_ME = re.compile(r"(?:so,? |then,? )?let me (?:just )?(?:do|compute|calculate) (?=[\d$(])", re.IGNORECASE)
_TAG = re.compile(r",?\s+(?:right|correct|okay|yes|no|huh|isn't it|doesn't it)\?(?=\s*$)", re.IGNORECASE)
# What a bracket behind a word or number must begin with to say nothing new.
_ASIDE = re.compile(
    r"(?:which|since|because|as (?:i|we|he|she|it|they|you|the|given|stated|expected|mentioned|required)|i think|i'm"
    r"|again|though|just to|(?:this|that|it)(?:'s| (?:is|was|would|will|means|makes|seems|should)))\b",
    re.IGNORECASE,
)
_BRACKET = re.compile(r"\s+\(([A-Za-z][^()\d=]{2,160})\)")
# A formula, a list, code, or words that say which or how many: "(A ∩ B)", "(mod n)", "(inclusive)", "(not adjacent)".
_TELLING = re.compile(
    r"[^\w\s.:;?'’\"“”-]|(?<!\w)-|-(?!\w)"
    r"|\b(?:not|no|none|nor|neither|never|cannot|without|except|excluding|including|only|but|unless|if|when|mod|i\.e"
    r"|inclusive|exclusive|positive|negative|non-?\w+|distinct|different|same|ordered|unordered|odd|even"
    r"|at least|at most|exactly|with|up to|more than|less than|fewer than|assuming|min|max|choose)\b|n['’]t\b",
    re.IGNORECASE,
)
# What stands before a bracket that is an operand, an argument or the meaning of a letter.
_HOLDS = re.compile(
    r"(?:[^\w\s.:;'’\"”)%°*]|(?<!\*)\*|(?<![\w'’])[A-Za-z]|\b(?:is|are|was|be|equals?|of|by|times|plus|minus|divided"
    r"|multiplied|over|per|the|an|and|or|to|for|from|with|as|than|so|then|sin|cos|tan|log|ln|exp|max|min|gcd|lcm"
    r"|sqrt|mod))$",
    re.IGNORECASE,
)
_HELD = re.compile(r"[\w^!\[{/×·]|\*(?!\*)|\s*[\^(]")
_LITERAL = re.compile(
    r"\$\$.*?(?:\$\$|\Z)|\$(?=\S)[^$\n]*(?<=\S)\$(?!\d)|\\\(.*?(?:\\\)|\Z)|\\\[.*?(?:\\\]|\Z)|\\begin.*|`[^`]*`",
    re.DOTALL,
)
_MIDDLE = re.compile(
    r",\s+(?:i think|i guess|i believe|of course|you know|again|actually|basically|obviously)(?=[,.])", re.I
)
_HARD_OPENING = re.compile(
    r"(?:(?:(?:so(?! (?:far|much|many|long|few|little)\b)|then|now(?! that\b)|and|but|therefore|thus|hence|firstly"
    r"|secondly|finally|lastly|similarly|also|(?:in that case|after that|to start|to begin|from there)(?=,)"
    r"|that would be|that's)\b(?:,| that(?= (?:i|we|he|she|it|they|you|the|there|each|all|every|holds)\b))?"
    # "First term" and "next day" name a thing.
    r"|(?:first|second|third|next)\b(?:,|(?= (?:i|we|he|she|it|they|you|the|there|let)\b))"
    r"|(?:that means|this means|which means|meaning)\b(?:,| that(?! (?:is|was|would|will)\b)(?!'s))?)\s+)+",
    re.IGNORECASE,
)
# A purpose, a reason, or what "so" follows from. What else comes before a comma may be a condition, a time, a list.
_HARD_CLAUSE = re.compile(
    r"^(?P<clause>(?:(?:so|but|and|then|now) )?(?P<lead>(?:to (?:find|figure|determine|calculate|compute|solve"
    r"|work out|answer|get the)"
    r"|(?:since|because) (?!(?:for|in|if|when|from|to|with|after|before|at|on|by|last|then)\b)"
    r"|(?:by )?(?:add|subtract|plugg|putt|calculat|solv|combin|multiply|divid|substitut|simplify|summ|comput)ing"
    r"|in the end|at the (?:first|second|third) stop|alternatively|additionally|specifically|consequently)\b)?"
    r"[^\d,.:=\n]*),\s+"
    r"(?!(?:which|who|whose|whom|where|when|and|or|nor|but|plus|such|given|each of|with|not|if|since|because)\b)"
    r"(?(lead)|(?=so\b))(?=[^,]*\d)",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:not|no|never|without|except|unless|instead|only|cannot|if|when|suppose|let|given|assum\w+)\b|n['’]t\b",
    re.IGNORECASE,
)
_LETTER = re.compile(r"(?<![\w'’])[B-HJ-Zb-z](?![\w'’])")


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
    text = _without_asides(text, hard)
    if hard:
        if not ending:
            text = _HARD_OPENING.sub("", text, count=1) if _HARD_OPENING.match(text) else text
        text = _without_clause(text)
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


def _without_asides(text: str, hard: bool) -> str:
    if not _BRACKET.search(text):
        return text
    literal = [found.span() for found in _LITERAL.finditer(text)]
    telling = [found[1].lower() for found in _BRACKET.finditer(text) if _TELLING.search(found[1])]

    def tells(aside: str) -> bool:
        # "(adjacent)" says which where another is "(not adjacent)".
        return bool(_TELLING.search(aside)) or any(each.endswith((f" {aside}", f"-{aside}")) for each in telling)

    def told(bracket: re.Match[str]) -> str:
        start, end = bracket.span()
        aside = (hard or _ASIDE.match(bracket[1])) and not tells(bracket[1].lower()) and not read(bracket[0]).values
        apart = not _HOLDS.search(text, 0, start) and not _HELD.match(text, end)
        return "" if aside and apart and not any(a < end and start < b for a, b in literal) else bracket[0]

    return _BRACKET.sub(told, text)


def _without_clause(text: str) -> str:
    found = _HARD_CLAUSE.match(text)
    if not found:
        return text
    clause = found["clause"]
    whole = all(clause.count(left) == clause.count(right) for left, right in ("()", "[]", "{}"))
    whole = whole and not any(clause.count(mark) % 2 for mark in "$`|")
    if len(clause) < 12 or not whole or _CONDITION.search(clause) or not found["lead"] and _LETTER.search(clause):
        return text
    return text[found.end() :]


_WORD = re.compile(r"[a-z]+(?![\w^(\[{]|\s*(?:[=+/×·÷^<>≤≥≈∈]|\*(?!\*))|\s[-–−]\s)")
_SHORT_WORDS = frozenset("so it he we if in to at on by of my an as is or no be do up us me".split())
_FUNCTIONS = frozenset("sin cos tan sec csc cot log exp gcd lcm max min mod sqrt".split())


def _capitalise(text: str) -> str:
    # What is a variable, a function, a unit or part of a formula is no word.
    word = _WORD.match(text)
    plain = word and (len(word[0]) > 2 or word[0] in _SHORT_WORDS) and word[0] not in _FUNCTIONS
    return text[0].upper() + text[1:] if plain else text


def formulas(text: str) -> str | None:
    """The formulas of a sentence, one after the other ("Half of it, 24 / 2 = 12, is left." gives "24 / 2 = 12.").

    Args:
        text: the sentence.

    Returns:
        None where its computations are not all written as formulas, or it has none.
    """
    if len(text) > _LONGEST or _DISPLAYED.search(text) or "^" in text:
        return None  # powers are not read
    runs = (run.group().strip(" \t\n.,;!") for run in _FORMULA.finditer(text))
    found = [run for run in runs if _OPERATOR.search(run.partition("=")[0]) and run.partition("=")[2].strip()]
    alone = f"{', '.join(found)}."
    told, written = ([each for each in read(side).equations if each.stated] for side in (text, alone))
    # "5 boxes × 8 + 3 × 2 = 46" has no formula that stands alone.
    same = [(each.operands, each.value) for each in told] == [(each.operands, each.value) for each in written]
    return alone if found and same and len(found) == len(told) else None


def goal(text: str) -> str | None:
    """What is to be found, shortly ("I need to find out how many are left." gives "Find how many are left.").

    Args:
        text: a sentence that says so.

    Returns:
        None where it says so in other words.
    """
    seeking = _SEEKING.match(text)
    return f"Find {text[seeking.end() :]}" if seeking else None
