import re
from functools import partial
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from drp_hf import plots
from drp_hf.plot_style import run_style, short
from drp_hf.plots import BudgetCurve, Point
from drp_hf.published import BENCHMARKS, published_points
from drp_hf.records import Action

NAMES = ("org/base", "student <b>&amp;</b> $x^2$", "half \ud83d of\x00 it")
LENGTHS = {name: [40 * (number + 1), 90, 300] for number, name in enumerate(NAMES)}
CURVES = {
    name: BudgetCurve(
        np.array([0, 40, 90 + number, 512]), np.array([0, 0.25, 0.75, 0.75]), 0.125, 90 + number, {64: 0.5}
    )
    for number, name in enumerate(NAMES)
}
POINTS = {
    name: Point(300 / (n + 1), 0.8 + n / 20, (250 / (n + 1), 350 / (n + 1)), (0.7, 0.9))
    for n, name in enumerate(NAMES)
}
SKILLS = {(f"$x^{'y' * number} $", action): number for number in range(1, 40) for action in Action}
SHARES = dict(zip(Action, np.full((4, 20), 0.25), strict=True))
PLOTS = {
    "lengths": (partial(plots.length_histograms, LENGTHS), ["tokens of the whole output", "share of outputs"]),
    "budgets": (partial(plots.budget_curves, CURVES, 512), ["accuracy", ", AUC 0.125", ", answer forced"]),
    "pareto": (partial(plots.pareto, POINTS, published_points("gsm8k")), ["mean tokens of an output", "DRP 7B"]),
    "skills": (partial(plots.skill_bars, SKILLS), ["share of the original reasonings", "27 other skills"]),
    "places": (partial(plots.position_bars, SHARES), ["KEEP", "DELETE", "place in the reasoning"]),
    "answers": (partial(plots.answers_curve, [0, 5], [90, 40.5], [0.5, 1.0]), ["optimiser step", "tokens per answer"]),
}


def texts(svg):
    """The words of an SVG, which has to be well-formed."""
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", PLOTS)
def test_files_hold_what_they_must(name):
    plot, words = PLOTS[name]
    light, dark = (plot(theme=theme) for theme in ("light", "dark"))
    for png in (light, dark):
        with Image.open(BytesIO(png)) as picture:
            assert picture.format == "PNG"
            picture.load()
            assert min(picture.size) > 300
    assert light != dark
    svg = plot(form="svg")
    found = texts(svg)
    for word in words:
        assert any(word in text for text in found), word
    if name in ("lengths", "budgets", "pareto"):
        assert any("student <b>&amp;</b> $x^2$" in text for text in found)
        assert any("half of it" in text for text in found)


def test_same_data_same_bytes():
    plot, _ = PLOTS["pareto"]
    for form in ("png", "svg"):
        assert plot(form=form) == plot(form=form)
    assert not re.search(rb"dc:date|20\d\d-\d\d-\d\d|matplotlib\.org", plot(form="svg").replace(b"http://www.w3", b""))


def test_lengths_are_shares_of_their_run():
    svg = plots.length_histograms({"few": [100] * 3, "many": [200] * 5000}, form="svg")
    found = texts(svg)
    assert "few: median 100" in found and "many: median 200" in found and found.count("80%") == 2


def test_long_tails_and_nothing_at_all():
    for tokens in ([900, 1000, 200_000], [5], [0, 0]):
        assert plots.length_histograms({"before": tokens, "after": [3, 4, 4]}).startswith(b"\x89PNG")
    assert "100,000" in texts(plots.length_histograms({"a": [900, 1000, 200_000], "b": [90]}, form="svg"))
    nothing = BudgetCurve(np.array([0.0, 0.0]), np.array([0.0, 0.0]))
    assert plots.budget_curves({"nothing": nothing}, 0).startswith(b"\x89PNG")
    assert plots.pareto({"nothing": Point(0, 0)}).startswith(b"\x89PNG")


def test_hundred_thousand_outputs_stay_small():
    random = np.random.default_rng(0)
    tokens = np.sort(random.lognormal(6, 1, 100_000))
    curve = BudgetCurve(np.r_[0, tokens, 50_000], np.r_[0, np.arange(1, 100_001), 100_000] / 100_000)
    assert len(plots.budget_curves({"many": curve}, 50_000, form="svg")) < 100_000
    assert len(plots.length_histograms({"many": tokens}, form="svg")) < 100_000


def test_thinned_curves_keep_their_shape():
    x = np.arange(10_001.0)
    places, values = plots._thinned(x, x / 10_000)
    assert len(places) == plots.CORNERS and places[0] == 0 and places[-1] == 10_000
    assert np.abs(np.diff(values)).max() < 0.003
    few, _ = plots._thinned(x[:7], x[:7])
    assert few.tolist() == x[:7].tolist()


def test_frontier():
    """Fewer tokens or more accuracy than every other point; equals do not beat each other."""
    points = [Point(900, 0.92), Point(300, 0.9), Point(400, 0.85), Point(300, 0.8), Point(1000, 0.92), Point(200, 0.5)]
    assert plots.frontier(points) == [(200, 0.5), (300, 0.9), (900, 0.92)]


def test_the_frontier_goes_from_edge_to_edge():
    axes = Figure().add_subplot()
    axes.plot([100, 1000], [0, 1])
    right, low = axes.get_xlim()[1], axes.get_ylim()[0]
    lines = plots.draw_frontier(axes, [Point(300, 0.9), Point(200, 0.5), Point(400, 0.6)])
    assert [start for start, _ in lines] == [(200, low), (200, 0.5), (300, 0.5), (300, 0.9), (right, 0.9)]
    assert (axes.get_xlim()[1], axes.get_ylim()[0]) == (right, low)


@pytest.mark.parametrize("low", [0.1, 0.77, 0.8, 0.85])
def test_equal_steps_of_an_axis_are_labelled_with_equal_steps(low):
    points = {"a": Point(300, low + 0.1), "b": Point(200, low + 0.06, None, (low, low + 0.15))}
    found = texts(plots.pareto(points, form="svg"))
    labels = np.array([float(text[:-1]) for text in found if re.fullmatch(r"[0-9.]+%", text)])
    assert len(labels) > 4 and labels.max() <= 100
    assert np.diff(labels) == pytest.approx(np.full(len(labels) - 1, labels[1] - labels[0]))


def test_many_runs_are_named_in_the_legend():
    many = {f"run {n}": Point(100 + 50 * n, 0.5 + n / 20) for n in range(plots.NAMED + 1)}
    few = dict(list(many.items())[: plots.NAMED])
    for points in (many, few):
        found = texts(plots.pareto(points, form="svg"))
        assert sum(text in points for text in found) == len(points)


def test_names_of_points_cover_no_other_point():
    from matplotlib.text import Text

    from drp_hf.plot_style import figure

    spots = [(0.5, 0.5), (0.51, 0.5), (0.5, 0.52), (0.48, 0.51), (0.53, 0.5), (0.99, 0.99), (0.01, 0.99)]
    labels = [(x, y, f"point {x}", "black", "normal") for x, y in spots]
    with figure("light", 4.0) as drawn:
        axes = drawn.add_subplot()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        plots.label_points(drawn, axes, labels, [])
        drawn.draw_without_rendering()
        boxes = [Text.get_window_extent(text).padded(-1) for text in axes.texts]
        frame = axes.get_window_extent()
        points = axes.transData.transform(spots)
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
        assert not any(box.contains(*point) for point in points)
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1


def test_runs_differ_by_more_than_colour():
    styles = [run_style(number) for number in range(12)]
    looks = [(style.colour["light"], str(style.line)) for style in styles]
    assert len(set(looks)) == len({style.marker for style in styles[:11]}) + 1 == 12
    assert all(styles[n].line != styles[n + 1].line for n in range(8))


@pytest.mark.parametrize(
    ("text", "most", "label"),
    [
        ("a  b\n c", 32, "a b c"),
        ("", 32, "(none)"),
        ("cost $5", 32, r"cost \$5"),
        ("DeepSeek-R1-Distill-Qwen-32B", 12, "DeepSee…-32B"),
        ("\ud83d\x00", 32, "(none)"),
    ],
)
def test_labels(text, most, label):
    assert short(text, most) == label


def test_published_points():
    """Against the paper's main table."""
    gsm8k = {point.name: (point.accuracy, point.tokens) for point in published_points("gsm8k")}
    assert gsm8k["DRP 7B"] == (pytest.approx(0.941), 328) and gsm8k["base 1.5B"] == (pytest.approx(0.707), 1443)
    aime = {point.name: point for point in published_points("aime24")}
    assert aime["DRP 7B"].accuracy == 0.5 and aime["DRP 7B"].right == "15 of 30" and aime["DRP 7B"].tokens == 4966
    amc = {point.name: point for point in published_points("amc23")}
    assert amc["ThinkPrune 1.5B"].accuracy == 25 / 40
    assert {point.name: point.right for point in published_points("math500")}["CoT-Valve 7B"] == "89.4%"
    assert all(len(published_points(name)) == 7 for name in BENCHMARKS)
    for name in ("quickstart", "gsm8k_test", "svamp", "GSM8K", ""):
        assert published_points(name) == []
