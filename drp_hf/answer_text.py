"""One way of writing for answers that only differ in how they were typeset."""

from __future__ import annotations

import re

MAX_ANSWER = 1000
"""Characters; nothing longer is an answer."""
MAX_BRACKETS = 100
"""Opening brackets and braces; what has more is no answer."""
MAX_DEPTH = 10
"""Of brackets inside brackets: deep nesting stalls math-verify's parser."""

TEXT_COMMAND = re.compile(
    r"\\(?:text|mbox|textrm|mathrm|textbf|mathbf|boldsymbol|textit|mathit|textnormal|operatorname|bf|rm)\s*\{([^{}]*)\}"
)
_DELIMITERS = (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$"))
_ONE_WRITING = {
    "\\left": "", "\\right": "", "\\bigl": "", "\\bigr": "", "\\Bigl": "", "\\Bigr": "", "\\big": "", "\\Big": "",
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\displaystyle": "", "\\limits": "",
    "\\leqslant": "\\le", "\\geqslant": "\\ge", "\\leq": "\\le", "\\geq": "\\ge", "\\lt": "<", "\\gt": ">",
    "\\neq": "\\ne", "\\lbrace": "\\{", "\\rbrace": "\\}", "\\varnothing": "\\emptyset", "\\lvert": "|",
    "\\rvert": "|", "\\quad": " ", "\\qquad": " ", "\\degree": "°", "\\degrees": "°", "\\cdot": "*",
    "\\times": "*", "\\div": "/",
}  # fmt: skip
_COMMAND = re.compile(r"\\[A-Za-z]+")
_SYMBOLS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "∞": "\\infty ", "π": "\\pi ",
        "√": "\\sqrt ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "∈": "\\in ", "∅": "\\emptyset ",
        "ℝ": "\\mathbb{R}", "θ": "\\theta ", "±": "\\pm ", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
        "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "²": "^2", "³": "^3", "’": "'", "（": "(", "）": ")", "，": ",",
    }
)  # fmt: skip
_SPACES = re.compile(r"(?:\\[,;: ]|\s)+")
_NEGATIVE_SPACE = re.compile(r"\\!\s*")
_CIRCLE = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?")
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:(\d)|(\{[^{}]*\}))\s*(?:(\d)|(\{[^{}]*\}))")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\d|[a-z])(?![a-z])")
_LONE_BRACES = re.compile(r"([_^])\{(\w)\}")
_SIGNS = re.compile(r"([-+*/^!=~])\1{9}")
_BRACKET = re.compile(r"[()\[\]{}]")
_FREE_SPACE = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")


def clean(answer: str) -> str | None:
    """An answer without delimiters, emphasis and the punctuation after it; None if nothing (or too much) is left."""
    answer = answer.strip().strip("*_` \t\n")
    for left, right in _DELIMITERS if answer[:1] in ("\\", "$") else ():
        if len(answer) > len(left) + len(right) and answer.startswith(left) and answer.endswith(right):
            inside = answer[len(left) : -len(right)]
            # "$2$ or $3$" has formulas at both ends, and is none.
            if not inside.endswith("\\") and not re.search(rf"(?<!\\){re.escape(right)}", inside):
                answer = inside.strip()
    answer = answer.rstrip(" .,;:?。，；：")
    return answer if answer and len(answer) <= MAX_ANSWER else None


def typeset(answer: str) -> str:
    r"""One writing for each typesetting of an answer: `\dfrac34` is `\frac{3}{4}`, `\text{ cm}` is ` cm`, `−` is `-`.

    Words keep the spaces between them, and thousands signs become plain commas.
    """
    return one_writing(clean(answer) or "").strip().rstrip(" .")


def one_writing(text: str) -> str:
    """The same for a text of any length, of which nothing is cut off."""
    if not text.isascii():
        text = text.translate(_SYMBOLS)
    text = text.replace("{,}", ",").replace("~", " ")
    if "\\" in text:
        text = text.replace("\\%", "%").replace("\\$", "$").replace("\\\\", "\\cr ")
        text = _NEGATIVE_SPACE.sub("", text)
        text = TEXT_COMMAND.sub(r" \1 ", text)
        text = _COMMAND.sub(lambda match: _ONE_WRITING.get(match[0], match[0]), text)
        text = _CIRCLE.sub("°", text)
        text = _SHORT_FRACTION.sub(_full_fraction, text)
        text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    text = _SPACES.sub(" ", text)
    return _LONE_BRACES.sub(r"\1\2", text) if "{" in text else text


def _full_fraction(match: re.Match[str]) -> str:
    over, under = match[2] or f"{{{match[1]}}}", match[4] or f"{{{match[3]}}}"
    return f"\\frac{over}{under}"


def normalise(answer: str) -> str:
    """Form in which equal texts are equal answers: typeset in one way, without the spaces that say nothing."""
    return _FREE_SPACE.sub("", typeset(answer))


def too_large(answer: str) -> bool:
    """Whether an answer is too long, too nested or too repetitive to be one."""
    if len(answer) <= MAX_DEPTH:
        return False
    return len(answer) > MAX_ANSWER or _SIGNS.search(answer) is not None or _too_nested(answer)


def _too_nested(answer: str) -> bool:
    depth = opened = 0
    for bracket in _BRACKET.findall(answer):
        if bracket in ")]}":
            depth = max(0, depth - 1)
            continue
        depth, opened = depth + 1, opened + 1
        if depth > MAX_DEPTH or opened > MAX_BRACKETS:
            return True
    return False
