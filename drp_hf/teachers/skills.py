"""Names what a unit does: the skill it exercises, and the words that give away talk, doubt and repetition."""

from __future__ import annotations

import re
from enum import Enum

from drp_hf.teachers.quantities import Reading


class Role(Enum):
    """What part a unit plays in a reasoning, as far as its words tell."""

    WORK = "work"
    """Says something about the problem or computes."""
    TALK = "talk"
    """Speaks of the thinking itself: "Hmm.", "Let me see.", "That makes sense."."""
    PLAN = "plan"
    """Announces what comes next."""
    CHECK = "check"
    """Doubts or verifies what stands already."""
    OTHER_WAY = "other way"
    """Opens another method or reading."""
    REREAD = "reread"
    """Repeats the question."""
    QUESTION = "question"
    """Asks."""
    HEADING = "heading"
    """A title line."""


_OPENING = r"^[\W_]*(?:(?:okay|ok|alright|all right|well|so|but|and|now|oh|hmm+|hm|yeah|then|just)\b[\s,.…!-]*)*"
_CHECK = re.compile(
    _OPENING + r"(?:"
    r"wait\b|hold on|actually, wait|just to (?:be|make|double|check|confirm|verify)|to (?:be sure|double"
    r"|verify|confirm"
    r"|check|make sure|ensure)|(?:let me|let's|let us|i(?:'ll| will| should| can| need to| want to)"
    r"|maybe i(?: should)?"
    r"|we (?:can|should|could)|we'll|it's|perhaps)(?: \w+){0,3}? (?:re-?|double|verify|verifying|check"
    r"|confirm|make sure|be sure"
    r"|recap|recalculate|reconfirm|revisit|re-read|reread|reconsider|repeat|go (?:over|through|back)|review|test)"
    r"|double[- ]?check|check(?:ing)?\b|verif|confirm|for (?:clarity|verification|confirmation)|correct\b"
    r"|(?:is|are|does|did|do) (?:that|this|it|i)\b"
    r"|(?:that|this|it|everything|which|all)(?:'s| is| seems| looks| does| checks| sounds| makes| adds| matches| also|"
    r" all)+\b[^\d=]{0,20}(?:right|correct|good|consistent|ok|okay|fine|sense|out|up|reasonable|same|match)"
    r"|(?:so )?(?:that|it|this|which|everything) (?:all )?(?:works|holds|matches|fits|checks|is fine)\b"
    r"|i (?:used|did use) (?:that|it)\b"
    r"|yes\b|yep\b|yup\b|indeed\b|seems|same (?:answer|result|as)|either way|looks|again\b|going back"
    r"|to recap|to summarize|in summary|both (?:methods|ways)"
    r"|(?:any|all)(?: \w+)? (?:way|method)s?|unless|(?:did|am|have) i\b|is there|there(?:'s"
    r"| is) no(?:thing)?\b|maybe (?:i|there|the problem)"
    r"|i don't (?:think|see)|no,"
    r")",
    re.IGNORECASE,
)
_CHECK_ANYWHERE = re.compile(
    r"\b(?:double[- ]?check|re-?check|verif(?:y|ies|ied|ication|ying)|sanity check|that's (?:correct"
    r"|right)|is correct|checks out"
    r"|seems (?:right|correct|good)|makes sense|made a mistake|a mistake|misread|missed anything"
    r"|confirms?|reconfirm|as before"
    r"|same (?:answer|result)|again to|once more|to (?:double-)?ensure|ensur(?:e|ing) (?:that|it|we|our)"
    r"|reiterat\w+|already (?:established|calculated|computed|found)|adds up correctly|consistent with|just to be)\b",
    re.IGNORECASE,
)
_OTHER_WAY = re.compile(
    _OPENING + r"(?:\w+ ){0,3}?(?:alternatively|another (?:way|approach|method)|other way|a different (?:way|approach)"
    r"|(?:what|maybe) if\b|if (?:(?:i|we) (?:interpret|assume|consider|take|read|think)|the (?:problem"
    r"|question)|someone|instead)\b"
    r"|suppose\b|perhaps the\b|maybe (?:the|it|they)\b)",
    re.IGNORECASE,
)
_OTHER_WAY_ANYWHERE = re.compile(
    r"\b(?:alternative(?:ly)?|(?:another|different) (?:way|approach|method))\b", re.IGNORECASE
)
_PLAN = re.compile(
    _OPENING + r"(?:first|second|third|next|finally|lastly|to (?:find|figure|get|calculate|solve|determine|do|start)"
    r"|in order)?[\s,]*"
    r"(?:(?:so )?(?:i|we|you)(?:'ll| will| need| have| want| must| should| can| could|'d| just"
    r"| first)+(?: \w+)? to \w+"
    r"|(?:i|we)(?:'ll| will| can| should| need| must)+ \w+|let me|let's|let us|the (?:next|first|second"
    r"|last|final) (?:step|thing|part)"
    r"|the (?:question|problem) (?:asks|is asking|wants)|to (?:find|figure|get|calculate|solve|determine)\b"
    r"|now (?:for|onto|moving)|moving on|i think i|how (?:do|can|much|many)\b)",
    re.IGNORECASE,
)
_TALK = re.compile(
    _OPENING + r"(?:"
    r"let(?: me|'s| us) (?:see|think|start|break|do (?:that|this|it)|figure|try|work|tackle|go|read|look"
    r"|parse|write|take|"
    r"compute (?:that|this|it)|calculate (?:that|this|it)|note|rephrase|understand|organize|begin|solve"
    r"|approach|add (?:that|them|those|these)|"
    r"recall|visuali[sz]e|consider|process|imagine|list|jot|restate|clarify)"
    r"|i (?:think|guess|believe|see|mean|got|wonder|hope)|got (?:it|that)|that(?:'s"
    r"| is) (?:straightforward|easy|simple|it|all|clear|what)"
    r"|this is (?:straightforward|a |confusing|pretty)|(?:seems|sounds) |simple enough|easy|perfect|great"
    r"|good|right\b|hmm|maybe|perhaps|not sure"
    r"|(?:the|this) (?:problem|question) (?:here )?(?:is about|seems|wants|involves)|here(?:'s"
    r"| is) (?:the|what|how)|step by step|i remember|i recall"
    r"|i have this|i need to (?:be careful|understand|think|figure))",
    re.IGNORECASE,
)
_SLOWLY = re.compile(
    r"\b(?:slowly|carefully|step by step|one (?:thing|step|part) at a time|one by one)\b", re.IGNORECASE
)
_DIGIT = re.compile(r"\d")
_REREAD = re.compile(
    _OPENING + r"(?:[\"“]|(?:the |original |as per the )*(?:problem|question)(?: statement)?"
    r" (?:says|states|mentions|said|gives|asks|is asking|wants)"
    r"|(?:re-?read|reading)(?:ing)? |the question is"
    r"|(?:let me|let's|i(?:'ll| will)|to)(?: just)? (?:restate|re-?read|rephrase)\b)",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^\s*(?:#{1,6}\s.*|\*\*[^*]{1,60}\*\*:?)\s*$")
_CONCLUSION = re.compile(
    r"\b(?:therefore|thus|hence|so|answer|total|in total|altogether|finally|final|boxed|means|conclusion"
    r"|overall)\b|\\boxed",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z]{2,}")
# "6 * 15 = ?" asks nothing, it announces.
_BLANK = re.compile(r"=\s*\?+$")


def role(text: str, reading: Reading) -> Role:
    """The part that a unit plays.

    Args:
        text: the unit.
        reading: its quantities.
    """
    stripped = text.strip()
    if _HEADING.match(stripped) and not reading.equations:
        return Role.HEADING
    head = stripped[:200]
    if stripped.endswith("?") and not _BLANK.search(stripped):
        return Role.QUESTION
    if _OTHER_WAY.match(head) or _OTHER_WAY_ANYWHERE.search(head):
        return Role.OTHER_WAY
    if _REREAD.match(head):
        return Role.REREAD
    if _CHECK.match(head) or _CHECK_ANYWHERE.search(stripped[:400]):
        return Role.CHECK
    if not reading.equations:
        if _SLOWLY.search(stripped) and not _DIGIT.search(stripped):
            return Role.TALK
        if _TALK.match(head):
            return Role.TALK if not reading.numbers else Role.PLAN
        if _PLAN.match(head):
            return Role.PLAN
        if not _WORD.search(stripped) and not reading.numbers:
            return Role.TALK
    return Role.WORK


def concludes(text: str) -> bool:
    """Whether a unit has a word of conclusion ("therefore", "the answer", "in total", a box)."""
    return bool(_CONCLUSION.search(text))


_SETTLES = re.compile(
    _OPENING + r"(?:(?:yes|yep|good|great|right|correct|perfect|so)\W+)*(?:that|it|this|everything|all)(?:'s| is)?\W+"
    r"(?:all )?(?:right|correct|works|holds|matches|fits|checks out|adds up|makes sense|fine|good)\b",
    re.IGNORECASE,
)


def settles(text: str) -> bool:
    """Whether a unit ends a doubt ("Okay, that works.")."""
    return bool(_SETTLES.match(text)) and "?" not in text


_CONVERSION = re.compile(
    r"\b(?:minutes? in|hours? in|days? in|weeks? in|months? in|seconds? in|inches in|cents in|in (?:a|an"
    r"|one|each) (?:hour|day|"
    r"week|month|year|minute|dozen|foot|pound|dollar)|convert(?:ed|ing)?|(?:hours|minutes|feet|inches"
    r"|dollars|cents) (?:to|into))\b",
    re.IGNORECASE,
)
_OPERATION = {"+": "addition", "-": "subtraction", "*": "multiplication", "/": "division", "%": "percentage"}
_BY_ROLE = {
    Role.TALK: "self-talk",
    Role.PLAN: "planning",
    Role.CHECK: "checking a result",
    Role.OTHER_WAY: "trying another way",
    Role.REREAD: "re-reading the problem",
    Role.QUESTION: "self-questioning",
    Role.HEADING: "heading",
}


def skill(text: str, reading: Reading, part: Role, answers: bool) -> str:
    """Names the one atomic skill of a unit, in the vocabulary of DRP (arXiv 2505.13975).

    Args:
        text: the unit.
        reading: its quantities.
        part: its role.
        answers: whether it states the final answer without computing it.
    """
    if answers:
        return "clarify answer"
    if part not in (Role.WORK, Role.PLAN):
        return _BY_ROLE[part]
    if reading.equations:
        last = reading.equations[-1]
        if not last.operators:
            return "algebraic representation"
        if _CONVERSION.search(text):
            return "unit conversion"
        if "%" in last.operators or "%" in text:
            fraction = "%" not in text and "percent" not in text
            return "fraction of a quantity" if fraction else "percentage"
        kinds = {_OPERATION[operator] for operator in last.operators}
        return kinds.pop() if len(kinds) == 1 else "combined arithmetic"
    if part is Role.PLAN:
        return "planning"
    if reading.has_equals:
        return "algebraic representation"
    if _CONVERSION.search(text):
        return "unit conversion"
    return "reading given quantity" if reading.numbers else "explaining a relation"
