"""A small taxonomy of reasoning skills, to which the free-text skill names of any teacher are mapped.

Where a name fits several categories, what the step is *for* goes before what it computes: "verify the sum" is
verification, "plan to compute the area" is planning, "set up a proportion" is modelling. Among the purposes, a second
look (verification, exploration, talk) goes before the answer, and that before planning, modelling, reading and logic;
then the particular fields of mathematics (geometry, discrete mathematics, proportions, algebra) go before arithmetic.
The table of patterns below is this order.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

CATEGORIES: dict[str, str] = {
    "reading": "Takes in the problem: picks out, restates or interprets what is given and asked.",
    "planning": "Says what to do next, chooses a method, splits the task, or is a heading.",
    "modelling": "Puts the problem into mathematics: variables, relations, equations; recalls formulas and facts.",
    "arithmetic": "Computes with numbers: the four operations, totals, averages, rounding, estimation.",
    "proportions": "Works with fractions, percentages, ratios and rates, or converts units.",
    "algebra": "Transforms or solves expressions and equations; functions, sequences, calculus.",
    "geometry": "Works with shapes, lengths, areas, volumes, angles, coordinates, trigonometry.",
    "discrete mathematics": "Counting, probability and statistics; divisibility, primes, remainders, digits.",
    "logic": "Compares, tells cases apart, checks a condition, infers, proves, sees a pattern.",
    "verification": "Checks what stands already: a result, a computation, the reading of the problem.",
    "exploration": "Tries another way or reading, a guess, a branch that may be abandoned.",
    "self-talk": "Speaks of the thinking itself: doubt, hesitation, filler, questions to oneself.",
    "answer": "States, clarifies or sums up the result.",
    "other": "None of these, as far as the name tells.",
}
"""Categories and what they mean."""

_LONGEST = 200
"""Characters of a skill name that are looked at."""
_SOME = r"(?:\w+ ){0,3}"
"""Up to three words between two others; written … below."""
_SET_UP = r"(?:set|writ|form|build|creat|construct|deriv|translat|convert)\w*(?: up| down)?"
"""Beginnings of making something; written @ below."""

# Each pattern is a choice of word beginnings, searched for in the name as `_words` gives it; lines are joined without
# white space. The first pattern that is found decides. A category with telling and with weak words has two places.
_TABLE = (
    (
        "logic",
        r"""
        (?:check|verif|test|confirm|validat|evaluat)\w* (?:(?:a|the|each|every|all|any|both|given|this|edge|
        special|base|boundary|of|for) ){0,3}(?:condition|constraint|requirement|case|criteri)|
        (?:condition|constraint|case)s? (?:check|verif|test)|
        check\w* (?:if|whether)\b(?!.*\b(?:answer|result|solution|work|calculation|correct|right))
        """,
    ),
    (
        "discrete mathematics",
        r"(?:check|test)\w* (?:for )?(?:divisib|prim|parity)|(?:divisibility|primality) (?:check|test)",
    ),
    (
        "verification",
        r"""
        (?<!guess and )check|(?:re|double|cross|self) ?check|re ?verif|verif|validat|sanity|confirm|correctness|
        re ?(?:calculat|comput|count|evaluat|examin|assess)|re ?consider\w* …(?:result|answer|calculat)|
        self (?:correct|evaluat|assess|monitor|verif)|corrections?$|proof ?read|consisten|plausib|reasonabl|
        revisit|review(?!\w* …(?:problem|question|given))|reconcil|
        (?:error|mistake)s? (?:detect|correct|analys|identif|spot|recogn|find)|
        (?:detect|correct|spot|find|fix|identif|recogni[sz]|catch|notic|acknowledg)\w* …(?:error|mistake)|
        test\w* …(?:answer|result|solution)
        """,
    ),
    (
        "exploration",
        r"""
        alternat|
        (?:another|other|different|new|second|multiple) (?:way|approach|method|strateg|interpret|reading|path|
        route|perspective|possibilit)|
        explor|trial|try(?:ing)?\b|tries\b|tried\b|attempt|guess|speculat|conjectur|
        test\w* …(?:values?|candidates?)\b|hypothe|suppos|what if|back ?track|abandon|dead end|false start|brute|
        brainstorm|branch|experiment|re ?(?:consider|think|interpret)|
        (?:switch|chang)\w* …(?:approach|method|strateg|course)
        """,
    ),
    (
        "self-talk",
        r"""
        self (?:talk|question|doubt|dialog|encourag|reflect|aware|ask|prompt|speech)|monolog|inner |filler|
        think\w* (?:out )?a?loud|uncertain|unsure|hesita|hedg|confus|doubt|paus(?:e|ing)|mus(?:e|ing)\b|rambl|
        wonder|interject|meta ?(?:cogni|comment|talk)|confidence(?! interval)|emotion|chatter|small talk|stall|
        digress|rhetorical|transition|comment|reflect\w*(?: on\b|$)|redundan|repetition$|verbali[sz]|discourse
        """,
    ),
    (
        "answer",
        r"""
        answer|(?:final|end) (?:result|statement|value|output|response|solution)|(?<!logical )conclu|
        box(?:ed|ing)|summar|summing up|consolidat|recap|wrap|
        (?:combin|interpret|stat|restat|present|report)\w* …(?:results?|findings?|solutions?|outcomes?)\b|
        result (?:statement|interpret|report)
        """,
    ),
    (
        "planning",
        r"""
        plan(?:s|ning|ned)?\b|strateg|next step|decompos|break\w* …(?:down|into|apart)|outlin|sub ?goal|goal sett|
        set\w* (?:a |the )?goal|approach|road ?map|organi[sz]|heading|title|structur|announc|decision|decid|
        problem solving|solv\w* (?:the |a )*problem|sub ?problem|work\w* backward|
        (?:choos|select|pick|determin|identif|decid|find)\w* …(?:method|operation|technique|steps?\b|procedure)|
        (?:choos|select|pick)\w* …formula
        """,
    ),
    (
        "modelling",
        r"""
        model(?!ing error)|represent|mathemati[sz]|formali[sz]|
        (?<!problem )set ?ups?\b(?! (?:the |of |a )*problem)|setting up(?! (?:the |a )*problem)|explain|
        explanation|recall|retriev|remember|
        @ …(?:equation|expression|inequalit|proportion|function|formula|relation|system|algebra|symbol|mathematic)|
        (?:equation|expression|inequality|formula) (?:set|form|writ|build|construct|deriv|creat)|formulat|
        (?:defin|introduc|assign|declar|nam|choos|us)\w* …(?:variable|unknown|symbol|notation)|
        (?:variable|unknown|symbol)s? (?:defin|assign|introduc|declar|nam)|
        express\w* …(?:in terms|algebraic|as an? (?:equation|function))|
        translat\w* …(?:words?|problem|sentence|statement)|assum|draw\w* (?:a )?(?:diagram|picture)|visuali[sz]
        """,
    ),
    (
        "reading",
        r"""
        re ?read|read(?:s|ing)?\b|restat|rephras|paraphras|understand|comprehen|interpret|pars(?:e|ing)\b|
        question|(?:the|this|original) problem|
        problem (?:statement|text|context|descri|detail|analys|set ?up|interpret)|information|info\b|givens\b|
        clarif|ambigu|disambigu|context|goal|objective|
        (?:given|known|initial|provided|relevant|key|stated|needed|required) …(?:quantit|value|data|fact|number|
        condition|detail|variable|element|constraint|amount)|
        (?:not|stat|list|gather|collect|extract|identif|find|recogni[sz])\w* (?:the |all |a )*(?:given|known|
        unknown|need|requir|ask|what|target|quantit|values?|variables?|numbers?|data|key|relevant|initial|
        details?|facts?)\b|
        (?:identif|extract)\w* …(?:given|quantit|data|details)|
        (?:data|value|number|detail|quantity|fact) (?:extract|identif|gather)
        """,
    ),
    (
        "logic",
        r"""
        logic|compar(?:e|i)|case ?(?:s\b|work|analys|split|by case|distinction|discussion|reason)|
        deduc(?:e|i|tion|tive)|infer|impli(?:es|cation)|contradict|contraposit|counter ?example|
        pro(?:of|v(?:e|ing))\b|(?:mathematical )?induction|inductive|justif|conditions?\b|constraint|
        process of elimination|pattern|generali[sz]|classif|categori|
        eliminat\w* …(?:case|option|possib|choice|candidate)|sort(?:ing)?\b|
        order\w* …(?:number|value|fraction|quantit)|rul\w+ out|causal
        """,
    ),
    (
        "geometry",
        r"""
        geometr(?!ic (?:seq|ser|prog|mean|sum))|triang|pythag|circle|circular|circumf|areas?\b|perimeter|volume|
        angl|polygon|rectang|quadrilat|trapez|parallel|perpendic|coordinate|slope|(?:distance|midpoint) formula|
        midpoint|trigono|trig\b|sin(?:es?)?\b|cosine|tangent|radi(?:us|i|an)|diameter|hypoten|spatial|vectors?\b|
        symmetr|rotat|reflection (?:over|across|in|about)|transformation|cones?\b|cylind|spher|prism|pyramid|
        diagonal|vert(?:ex|ices)|shape|polar|ellip|hyperbol|planes?\b|planar|locus
        """,
    ),
    (
        "discrete mathematics",
        r"""
        count|combinatori|(?<!linear )combinations?\b|permut|probab|expected value|expectation|odds\b|choose|
        binomial|factorial|inclusion exclusion|venn|set theory|pigeonhole|stars and bars|divisib|divisor|
        primes?\b|coprime|gcd|gcf|lcm|hcf|greatest common|(?:lowest|least) common multiple|common multiple|
        multiples\b|modul|mod\b|congruen|remainder|parity|odd (?:and|or|even)|even (?:and |or )?odd|digits\b|
        (?:last|units?) digit|digit (?:sum|analys|extract|reason|manip)|diophant|euclid|number theor|
        number bases?|base (?:conver|repr)|totient|sample space|arrangement|enumerat|factor pair|factors of|
        list\w* (?:the |all |possible )*(?:factors|outcomes|possib)|statist|median|variance|standard deviation|
        graph theory|residue|bijection
        """,
    ),
    (
        "proportions",
        r"""
        units?\b|dimension|conver(?:t|sion)|percent|(?<!partial )fraction|(?<!common )ratios?\b|proportion|
        rates?\b|speed|velocit|discount|interest|tax(?:es)?\b|mark ?up|tips?\b|numerator|common denominator|half\b|
        halv|thirds?\b|quarter|scal(?:e|ing)|per (?:unit|item|person|hour|day)|densit|mixture|cross mult|
        one (?:half|third|fourth)
        """,
    ),
    (
        "algebra",
        r"""
        algebra|equation|inequalit|solv|isolat|simplif|substitut|plug|eliminat|factor|expand|expansion|foil\b|
        distributive|distribut\w* …(?:property|terms?\b|multiplication|coefficient|factor|negative|over)|
        (?:like|collect\w*) terms?|polynomial|quadratic|cubic|linear|systems?\b|exponents?\b|exponential|radical|
        logarithm|logs?\b|functions?\b|sequence|series\b|progression|recurren|recursi|telescop|rearrang|manipulat|
        transpos|complex number|conjugate|matri(?:x|ces)|determinant|calculus|derivativ|differentiat|
        integra(?:l|te|tion)|limits?\b|complet\w* the square|vieta|expressions?\b|graph|parabola|absolute value|
        rationali[sz]|optimi[sz]|maxim|minim|(?:difference|sum) of (?:two )?(?:squares|cubes)|roots? of|domain|
        inverse|bounding|partial fraction
        """,
    ),
    (
        "arithmetic",
        r"""
        arithmetic|add(?:s|ed|ing|ition|itions|itive|end)?\b|sum(?:s|med|ming|mation)?\b|subtract|minus|plus\b|
        differen|multipl|product|times?\b|divi[ds]|quotient|calculat|comput|sub ?total|total|tally|accumul|
        aggregat|combined|averag|mean\b|round|estimat|approximat|order of operations|pemdas|bodmas|operation|
        numer|decimal|deduct|increment|decrement|increas|decreas|doubl|tripl|squar|cub(?:e|ing)|powers?\b|
        roots?\b|exponentiation|number sense|place value|costs?\b|pric|money|budget|profit|revenue|earning|
        remaining|left ?over|evaluat|shar(?:e|ing)\b|equal group|(?:re)?group|partition|
        distribut|track|inventor|updat|carry|borrow|repeated
        """,
    ),
    (
        "modelling",
        r"""
        relat(?:e|ing|ion)|formula|theorem|facts?\b|definition|defin|knowledge|notation|variables?\b|
        (?<=\w )unknowns?\b|common ?sense|concept|propert|identit(?:y|ies)|principle|rules?\b|diagram
        """,
    ),
    ("reading", r"problem|identif|extract|list|not(?:e|ing)\b|observ"),
    ("planning", r"steps?\b|method|procedure|setting"),
    ("logic", r"reason|analy[sz]|determin|recogni[sz]|conditional|judg"),
    ("self-talk", r"think|thought|pondering|talk"),
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NO_WORD = re.compile(r"[\W_]+")


def _compile(pattern: str) -> re.Pattern[str]:
    choice = "".join(line.strip() for line in pattern.splitlines())
    return re.compile(rf"\b(?:{choice})".replace("…", _SOME).replace("@", _SET_UP))


_COMPILED = [(category, _compile(pattern)) for category, pattern in _TABLE]


def categorise(skill: str) -> str:
    """The category of a skill named in free text; case, punctuation and white space do not matter.

    Args:
        skill: the name; only its first 200 characters are looked at.

    Returns:
        A key of `CATEGORIES`: `"other"` for an unknown name. `""` for a name without a letter or digit.
    """
    return _categorise(skill[:_LONGEST])


@lru_cache(maxsize=1 << 14)
def _categorise(skill: str) -> str:
    words = _words(skill)
    if not words:
        return ""
    return next((category for category, pattern in _COMPILED if pattern.search(words)), "other")


def _words(skill: str) -> str:
    """Lower-case words with one space between, from `"Double-checking…"`, `self_checking`, `SelfChecking` alike."""
    plain = _CAMEL.sub(" ", unicodedata.normalize("NFKC", skill)[:_LONGEST])
    return _NO_WORD.sub(" ", plain.casefold()).strip()
