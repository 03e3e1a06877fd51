import ast
import inspect
import textwrap
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drp_hf.taxonomy import CATEGORIES, categorise
from drp_hf.teachers import skills

OFFLINE_TEACHER = {
    "clarify answer": "answer",
    "self-talk": "self-talk",
    "self-questioning": "self-talk",
    "planning": "planning",
    "heading": "planning",
    "checking a result": "verification",
    "trying another way": "exploration",
    "re-reading the problem": "reading",
    "reading given quantity": "reading",
    "algebraic representation": "modelling",
    "explaining a relation": "modelling",
    "unit conversion": "proportions",
    "fraction of a quantity": "proportions",
    "percentage": "proportions",
    "addition": "arithmetic",
    "subtraction": "arithmetic",
    "multiplication": "arithmetic",
    "division": "arithmetic",
    "combined arithmetic": "arithmetic",
}
FUNCTION_TAGS = {
    "plan_generation": "planning",
    "active_computation": "arithmetic",
    "fact_retrieval": "modelling",
    "self_checking": "verification",
    "uncertainty_management": "self-talk",
    "result_consolidation": "answer",
    "problem_setup": "reading",
    "final_answer_emission": "answer",
}
PLAUSIBLE = {
    "reading": [
        "Identify given information",
        "Re-reading question",
        "Understanding the problem statement",
        "Extracting numerical data",
        "restating the goal",
        "Identifying known quantities",
        "interpreting the question",
        "Reviewing the problem",
        "Resolving ambiguity",
    ],
    "planning": [
        "Planning the next step",
        "problem decomposition",
        "Breaking down the problem",
        "Choosing the operation",
        "Strategy selection",
        "outline approach",
        "working backwards",
    ],
    "modelling": [
        "set up equation",
        "Setting up a proportion",
        "Defining variables",
        "Translating words into equations",
        "Recalling the area formula",
        "writing an algebraic expression",
        "stating an assumption",
        "Formula application",
        "Commonsense knowledge",
    ],
    "arithmetic": [
        "compute subtotal via multiplication",
        "Calculating total cost",
        "Basic arithmetic",
        "order of operations",
        "Averaging",
        "Rounding to the nearest cent",
        "estimate a sum",
        "repeated addition",
        "multi-digit multiplication",
        "finding the difference",
        "Quantity tracking",
        "grouping items",
    ],
    "proportions": [
        "unit rate reasoning",
        "Simplifying fractions",
        "percentage increase",
        "Ratio and proportion",
        "convert hours to minutes",
        "Applying a discount",
        "scaling a recipe",
        "speed-distance-time",
    ],
    "algebra": [
        "combining like terms",
        "Solving a linear equation",
        "isolating the variable",
        "Quadratic formula",
        "Factoring polynomials",
        "substitution",
        "geometric series",
        "Taking the derivative",
        "distributive property",
    ],
    "geometry": [
        "Pythagorean theorem",
        "area calculation",
        "Angle chasing",
        "similar triangles",
        "trigonometric identity",
        "coordinate geometry",
        "reflection over the y-axis",
    ],
    "discrete mathematics": [
        "prime factorization",
        "modular arithmetic",
        "Counting outcomes",
        "conditional probability",
        "Combinations and permutations",
        "finding the least common multiple",
        "Divisibility check",
        "Chinese remainder theorem",
        "units digit",
    ],
    "logic": [
        "checking a condition",
        "Case analysis",
        "Comparing quantities",
        "Logical deduction",
        "proof by contradiction",
        "Verify the constraints",
        "pattern recognition",
        "process of elimination",
    ],
    "verification": [
        "sanity check",
        "double-checking by alternative method",
        "Verify the sum",
        "Verification of final answer",
        "checking whether the answer is correct",
        "Error correction",
        "recalculation",
        "Confirming the result",
        "unit check",
    ],
    "exploration": [
        "guess and check",
        "Trial and error",
        "Considering an alternative interpretation",
        "abandoned branch",
        "backtracking",
        "attempting a different approach",
        "Hypothetical reasoning",
    ],
    "self-talk": [
        "expressing uncertainty",
        "Hesitation",
        "filler",
        "thinking aloud",
        "metacognitive comment",
        "Self-reflection",
        "Transition phrase",
    ],
    "answer": [
        "final answer statement",
        "Stating the conclusion",
        "Summarizing results",
        "Boxed answer",
        "interpreting the result",
        "rounding the final answer",
    ],
    "other": ["baking", "introduction", "lorem ipsum", "加法", "x", "N/A", "unknown"],
    "": ["", " \n\t", "…", "--", "???"],
}
NAMES = [
    *OFFLINE_TEACHER.items(),
    *FUNCTION_TAGS.items(),
    *((name, category) for category, names in PLAUSIBLE.items() for name in names),
]


def test_it_is_small_and_every_category_is_described():
    assert 10 <= len(CATEGORIES) <= 14
    assert all(meaning.endswith(".") and "\n" not in meaning for meaning in CATEGORIES.values())
    assert {category for _, category in NAMES} == CATEGORIES.keys() | {""}


@pytest.mark.parametrize(("name", "category"), NAMES)
def test_names(name, category):
    assert categorise(name) == category


def test_every_name_of_the_offline_teacher_is_known():
    tree = ast.parse(textwrap.dedent(inspect.getsource(skills.skill)))
    values = [part for node in ast.walk(tree) if isinstance(node, ast.Return) for part in _leaves(node.value)]
    returned = {part.value for part in values if isinstance(part, ast.Constant)}
    assert len(returned) >= 9  # the walk has found them
    names = returned | set(skills._BY_ROLE.values()) | set(skills._OPERATION.values())
    assert names == OFFLINE_TEACHER.keys()


def _leaves(node):
    return [*_leaves(node.body), *_leaves(node.orelse)] if isinstance(node, ast.IfExp) else [node]


@pytest.mark.parametrize(("name", "category"), NAMES)
def test_case_punctuation_and_white_space_do_not_matter(name, category):
    spaced = name.replace("-", " ")
    for variant in (name.upper(), f"  **{name}**: ", spaced.replace(" ", "_"), spaced.replace(" ", " \n - ")):
        assert categorise(variant) == category
    if name.isascii():
        assert categorise("".join(word.capitalize() for word in spaced.replace("_", " ").split())) == category


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("verify the sum", "verification"),
        ("plan to compute the area", "planning"),
        ("plan to verify the area", "verification"),
        ("set up a ratio", "modelling"),
        ("try factoring", "exploration"),
        ("compare the fractions", "logic"),
        ("add the areas of two triangles", "geometry"),
        ("solve for the percentage", "proportions"),
        ("multiply both sides of the equation", "algebra"),
    ],
)
def test_what_a_step_is_for_goes_before_what_it_computes(name, category):
    assert categorise(name) == category


@given(st.text() | st.text(alphabet="check if verify the set up result_- ", max_size=300))
def test_any_text_has_a_known_category_or_none(name):
    category = categorise(name)
    assert category in CATEGORIES or category == ""
    assert categorise(name) == category
    if not any(character.isalnum() for character in name[:200]):
        assert category == ""


def test_long_and_hostile_text():
    start = time.perf_counter()
    for text in ("check if ", "set up ", "identify the ", "a", "\ufdfa", " ", "\ud800", "identif" * 30 + " "):
        assert categorise(text * 10_000) in CATEGORIES.keys() | {""}
    assert time.perf_counter() - start < 2
    assert categorise("x " * 100 + "addition") == "other"
    assert categorise("addition" + " x" * 1_000) == "arithmetic"
