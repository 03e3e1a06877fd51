import base64
import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from drp_hf import evaluations, report_figures
from drp_hf.commands import report as command
from drp_hf.commands.evaluate import EvaluateConfig
from drp_hf.commands.parsing import run
from drp_hf.commands.score import ScoreConfig
from drp_hf.corpus import view_file
from drp_hf.errors import DRPError
from drp_hf.evaluations import read_evaluation
from drp_hf.figures import budget_auc
from drp_hf.grading import Grader
from drp_hf.problems import generate
from drp_hf.provenance import write_run_info
from drp_hf.pruning import prune_trace
from drp_hf.records import CORPUS_FEATURES, Action, CorpusRow, Step, final_response, render_output
from drp_hf.report import write_report
from drp_hf.report_answers import outcomes_of, shown_answer, shown_questions
from drp_hf.report_corpus import PARTS, corpus_rows, places_of, read_corpus, shown_trace
from drp_hf.report_runs import compare, run_names
from drp_hf.scoring import Sample, score_samples
from drp_hf.store import write_parquet
from drp_hf.teachers.slicing import SlicingTeacher
from drp_hf.verbose_traces import verbose_trace

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'></div></html><!-- {{ 7 * 7 }} &amp;"
STRANGE = f"{HOSTILE} half \ud83d of it, \u202eשלום, {'w' * 500}"
"""What a model may write: markup, half a character, the other direction, a very long word."""
VOID = {"meta", "img", "source", "link", "br", "input"}
FORCED = {"64": {"accuracy": 0.25, "mean_tokens": 66.5}, "128": {"accuracy": 0.75, "mean_tokens": 90.0}}


def count_tokens(text):
    return len(re.findall(r"\w+|[^\w\s]", text))


def corpus_row(problem, number):
    return prune_trace(verbose_trace(problem, number), SlicingTeacher("default"), count_tokens)


def hostile_row():
    """Every action, and markup wherever a model, a teacher or a data set can put text."""
    parts = [
        ("Hmm, 3 pens. ", Action.DELETE, ""),
        (f"{HOSTILE} stays. ", Action.KEEP, ""),
        ("So it is three times four, well, that is 12. ", Action.COMPRESS, f"3 × 4 = 12 {HOSTILE}."),
        ("Now add one.\n\nThat gives 13.", Action.MERGE, "12 + 1 = 13."),
    ]
    steps, position = [], 0
    for text, action, rewrite in parts:
        steps.append(Step(position, position + len(text), f"skill {HOSTILE}", action, rewrite))
        position += len(text)
    pruned = f"{HOSTILE} stays. 3 × 4 = 12 {HOSTILE}. 12 + 1 = 13."
    return CorpusRow(
        question=f"How many? {HOSTILE}",
        answer="13",
        reasoning="".join(text for text, _, _ in parts),
        response=f"13 {HOSTILE}",
        model=f"model {HOSTILE}",
        steps=steps,
        pruned_reasoning=pruned,
        completion=render_output(pruned, final_response("13")),
        tokens_before=100,
        tokens_after=1,
        teacher=f"teacher {HOSTILE}",
        accepted=True,
        reason=f"fall-back: {HOSTILE}",
    )


def write_corpus(folder, rows):
    write_parquet(folder / view_file("raw", "train"), (row.to_dict() for row in rows), CORPUS_FEATURES)
    return folder


def write_run(folder, model, answers, **settings):
    """A run folder, its answers scored as `drp evaluate` does; an answer is (benchmark, problem, sample, output)."""
    max_tokens = settings.pop("max_tokens", 512)
    lengths = [count_tokens(output) for *_, output in answers]
    samples = [
        Sample(output, problem.answer, n_tokens, n_tokens < max_tokens)
        for (_, problem, _, output), n_tokens in zip(answers, lengths, strict=True)
    ]
    with Grader(workers=1) as grader:
        scores = list(score_samples(samples, grader))
    rows = [
        {
            "benchmark": benchmark,
            "question": f"{problem.question} {HOSTILE}",
            "answer": problem.answer,
            "sample": sample,
            "output": output,
            **asdict(score),
        }
        for (benchmark, problem, sample, output), score in zip(answers, scores, strict=True)
    ]
    evaluations.write_evaluation(folder, model, max_tokens, rows, budgets=[100, 200], **settings)
    return folder


def wrong(output):
    return f"{output} No, wait. The answer is 99999."


def before_answers(problems, benchmark="gsm8k"):
    """Verbose answers, of which every fourth is wrong."""
    outputs = [verbose_trace(problem, number).output for number, problem in enumerate(problems)]
    return [
        (benchmark, problem, 0, wrong(output) if number % 4 == 0 else output)
        for number, (problem, output) in enumerate(zip(problems, outputs, strict=True))
    ]


def after_answers(problems, seed, benchmark="gsm8k", text=STRANGE):
    """Pruned answers, of which every fifth is wrong."""
    outputs = [corpus_row(problem, seed).completion.replace("<think>\n", f"<think>\n{text}\n") for problem in problems]
    return [
        (benchmark, problem, 0, wrong(output) if number % 5 == seed else output)
        for number, (problem, output) in enumerate(zip(problems, outputs, strict=True))
    ]


PROBLEMS = list(generate(20, "test", 0))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A corpus of 14 accepted rows and a rejected one; a baseline, a student in two seeds, and another model."""
    folder = tmp_path_factory.mktemp("report")
    rows = [corpus_row(problem, number) for number, problem in enumerate(generate(13, "train", 0))]
    assert all(row.accepted for row in rows)
    rejected = replace(rows[0], accepted=False, steps=[], completion="", reason="wrong answer: 1 for 2")
    write_corpus(folder / "corpus", [*rows, rejected, hostile_row()])
    before = before_answers(PROBLEMS) + before_answers(PROBLEMS[:4], f"own {HOSTILE}")
    baseline = read_evaluation(write_run(folder / "before", "/home/somebody/runs/base", before))
    for seed in (1, 2):
        answers = after_answers(PROBLEMS, seed)[::-1] + after_answers(PROBLEMS[:4], seed, f"own {HOSTILE}")
        settings = {"baseline": baseline, "n_parameters": 7_000_000_000}
        write_run(folder / f"after{seed}", "/home/somebody/runs/student", answers, **settings)
    file = folder / "after1" / "results.json"
    results = json.loads(file.read_text())
    results["benchmarks"]["gsm8k"]["forced"] = FORCED
    results["benchmarks"]["gsm8k"]["constants"]["forced"] = {"text": "</think> The answer is", "max_tokens": 32}
    file.write_text(json.dumps(results))
    write_run(folder / "other", f"$x^2$ {STRANGE}", after_answers(PROBLEMS, 3, text=""), max_tokens=999)
    return folder


def runs_of(data, *names):
    return [data / name for name in names]


class Page(HTMLParser):
    """Elements with their attributes and classes, and the text inside elements."""

    def __init__(self, path):
        super().__init__()
        self.elements = []
        self.open = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attributes):
        element = SimpleNamespace(tag=tag, attributes=dict(attributes), text="")
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        for element in self.open:
            element.text += data

    def find(self, tag, css_class=None):
        return [
            element
            for element in self.elements
            if element.tag == tag and (css_class is None or css_class in element.attributes.get("class", "").split())
        ]


RUNS = ("before", "after1", "after2", "other")
NAMES = ["base", "student (after1)", "student (after2)", None, "student (all 2 runs)"]


@pytest.fixture(scope="module")
def page(data):
    return Page(write_report(data / "out" / "report.html", runs_of(data, *RUNS), data / "corpus"))


# -------------------------------------------------------------------------------------------------------------- page


def test_page_fetches_nothing(page):
    for element in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert element.attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), element
        assert not any(name.startswith("on") for name in element.attributes)
    assert not {"script", "link", "iframe", "object", "base"} & {element.tag for element in page.elements}
    (policy,) = [tag for tag in page.find("meta") if tag.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attributes["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    (style,) = page.find("style")
    assert "url(" not in style.text and "@import" not in style.text


def test_links_lead_somewhere(page):
    targets = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(targets) == len(set(targets))
    links = [element.attributes["href"].removeprefix("#") for element in page.find("a")]
    assert len(links) == 10 and set(links) <= set(targets)


def test_every_section_is_there(page):
    titles = [element.text for element in page.find("h2") + page.find("h3")]
    for title in ("gsm8k", f"own {HOSTILE}", "The corpus", "Traces step by step"):
        assert title in titles
    for title in ("Figures", "How long outputs are", "Accuracy at a budget of tokens", "Answers side by side"):
        assert titles.count(title) == 2
    assert "What was pruned, by kind of skill" in titles and "Where in the trace it was pruned" in titles
    assert all(picture.attributes["alt"] for picture in page.find("img"))


def test_model_text_is_escaped(page):
    assert len(page.find("img")) == 8 and not page.find("script")
    hostile = next(element for element in page.find("details", "shown-trace") if HOSTILE in element.text)
    # Question, model, kept text, rewrite, four skills, response, completion (twice) and the fall-back.
    assert hostile.text.count(HOSTILE) == 12
    thinking = [element.text for element in page.find("div", "thinking")]
    assert sum(HOSTILE in text for text in thinking) == len(thinking) / 2
    strange = next(text for text in thinking if HOSTILE in text)
    assert "half ? of it" in strange and "\u202eשלום" in strange and "w" * 500 in strange
    assert all(HOSTILE in question.text for question in page.find("div", "question")[:9])


def test_text_of_models_stands_apart(page):
    """Text in the other direction does not turn around what stands beside it."""
    for css_class in ("question", "text", "words"):
        found = page.find("div", css_class)
        assert found and all(element.attributes.get("dir") == "auto" for element in found)
    heads = [head for table in page.find("table", "runs") for head in table.text.split("Answers")[:1]]
    assert heads and len([name for name in page.find("bdi") if "שלום" in name.text]) >= 3


def test_everything_that_scrolls_takes_the_keyboard(page):
    scrolling = page.find("div", "scroll") + page.find("div", "thinking") + page.find("ol", "steps")
    assert len(scrolling) > 10
    assert all(
        element.attributes.get("tabindex") == "0" and "aria-label" in element.attributes for element in scrolling
    )


# ------------------------------------------------------------------------------------------------------------ traces


def test_ten_traces_in_full(page, data):
    traces = page.find("details", "shown-trace")
    assert len(traces) == 10 and sum("open" in trace.attributes for trace in traces) == 1
    rows = [row for row in corpus_rows(data / "corpus") if row.accepted]
    assert len(rows) == 14
    shown = [row for row in rows if any(row.question in trace.text for trace in traces)]
    assert len(shown) == 10
    for row in shown:
        (trace,) = [trace for trace in traces if row.question in trace.text]
        assert row.completion in trace.text
        for step in row.steps:
            assert row.reasoning[step.start : step.end].strip() in trace.text
    kept = [float(re.search(r"([\d.]+)% kept", trace.text)[1]) for trace in traces]
    assert kept == sorted(kept) and kept[0] == 1


def test_actions_show_without_colour(page):
    steps = (
        page.find("li", "KEEP") + page.find("li", "DELETE") + page.find("li", "COMPRESS") + page.find("li", "MERGE")
    )
    assert all(step.attributes["class"] in step.text for step in steps)
    struck = page.find("del")[3:]  # three are in the legend
    assert len(struck) == len(steps) - len(page.find("li", "KEEP"))
    assert {"12 + 1 = 13."} < {element.text for element in page.find("ins")}
    assert "Now add one.\n\nThat gives 13." in [element.text for element in struck]


def test_pieces_make_the_completion():
    rows = [hostile_row(), *(corpus_row(problem, 3) for problem in generate(5, "train", 8))]
    for row in rows:
        shown = shown_trace(row)
        assert "".join(piece["text"] for piece in shown["pieces"]) == row.completion
        assert {piece["action"] for piece in shown["pieces"]} <= {"", "KEEP", "COMPRESS", "MERGE"}
        assert [step["action"] for step in shown["steps"]] == [step.action for step in row.steps]


def test_places_of_actions():
    """Two thirds of 30 characters deleted, then kept: the border lies in the fourteenth of twenty parts."""
    shares = places_of([Step(0, 20, "", Action.DELETE), Step(20, 30, "", Action.KEEP)])
    assert shares.shape == (4, PARTS) and shares.sum(axis=0) == pytest.approx(np.ones(PARTS))
    keep, delete = (shares[list(Action).index(action)] for action in (Action.KEEP, Action.DELETE))
    assert delete[:13] == pytest.approx(np.ones(13)) and keep[14:] == pytest.approx(np.ones(6))
    assert delete[13] == pytest.approx(1 / 3) and keep[13] == pytest.approx(2 / 3)
    assert not places_of([]).any()


def test_every_trace_counts_the_same_by_place(data):
    corpus = read_corpus(data / "corpus")
    shares = corpus.place_shares()
    assert sum(shares.values()) == pytest.approx(np.ones(PARTS))
    rows = [row for row in corpus_rows(data / "corpus") if row.accepted]
    expected = np.mean([places_of(row.steps) for row in rows], axis=0)
    assert np.stack(list(shares.values())) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------------------- plots


def test_plots_are_pictures(page, data):
    sources = [element.attributes["src"] for element in page.find("img")]
    dark = [element.attributes["srcset"] for element in page.find("source")]
    assert len(sources) == len(dark) == 8 and not set(sources) & set(dark)
    for source in sources + dark:
        with Image.open(BytesIO(base64.b64decode(source.partition(",")[2], validate=True))) as picture:
            assert picture.format == "PNG"
            picture.load()
            assert min(picture.size) > 300 and len(set(picture.convert("L").tobytes())) > 20
    plots_of = {"gsm8k": ("lengths", "budgets", "pareto"), "corpus": ("skills", "places")}
    for part, names in plots_of.items():
        for name in names:
            file = data / "out" / f"report_{part}_{name}.png"
            assert f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}" in sources
            assert file.with_suffix(".svg").is_file()
    assert len(list((data / "out").glob("report_own_*.svg"))) == 3


# ------------------------------------------------------------------------------------------------------------ tables


class Cells(HTMLParser):
    """The rows of every table of runs: label, and of every column value and interval."""

    def __init__(self, path):
        super().__init__()
        self.tables = []
        self.cell = None
        self.inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.inside = dict(attributes).get("class", "")
            if self.inside == "runs":
                self.tables.append([])
        elif self.inside == "runs" and tag == "tr":
            self.tables[-1].append([])
        elif self.inside == "runs" and tag in ("th", "td"):
            self.cell = []
            self.tables[-1][-1].append(self.cell)

    def handle_endtag(self, tag):
        if tag == "table":
            self.inside = ""
        if tag in ("th", "td"):
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None and data.strip():
            self.cell.append(data.strip())


def read_number(text):
    """A number as the page shows it: its value, and half a unit of its last digit."""
    text = text.replace("−", "-").replace(",", "").removeprefix("< ")
    scale = 0.01 if text.endswith("%") else 1
    digits = text.removesuffix("%")
    mantissa, _, exponent = digits.partition("e")
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return float(digits) * scale, 0.5000001 * scale * 10**-decimals


KEYS = {
    "Accuracy": "accuracy",
    "Cut off": "share_truncated",
    "Without an answer": "share_without_answer",
    "Outputs": "n_samples",
    "Mean": "mean_tokens",
    "Median": "median_tokens",
    "90th percentile": "p90_tokens",
    "99th percentile": "p99_tokens",
    "Mean of thinking": "mean_think_tokens",
    "Mean of the answer": "mean_answer_tokens",
    "Mean of right outputs": "mean_tokens_correct",
    "Mean of wrong outputs": "mean_tokens_wrong",
    "Per right answer": "tokens_per_correct",
    "Area under the curve": "budget_auc",
    "Budget that suffices": "budget_keeping",
    "Tokens saved": "token_reduction",
    "Tokens saved a question": "mean_token_reduction",
    "Accuracy gained": "delta_accuracy",
    "Questions gained": "questions_gained",
    "Questions lost": "questions_lost",
    "McNemar's exact p": "mcnemar_p",
    "AES": "aes",
    "Accuracy per token": "accuracy_per_token",
    "ACU": "acu",
    "Outcome efficiency": "outcome_efficiency",
    "Process efficiency": "process_efficiency",
    "Underthinking": "underthinking",
    "E3": "e3",
    "Reflection markers": "reflection_rate",
}


def test_every_number_is_that_of_the_results(page, data):
    """Of the runs that were evaluated against the baseline, all that the tables show stands in their results.json."""
    tables = Cells(data / "out" / "report.html").tables
    assert len(tables) == 4  # figures and composites of two benchmarks
    for pair, benchmark in ((tables[:2], "gsm8k"), (tables[2:], f"own {HOSTILE}")):
        rows = {row[0][0]: row[1:] for table in pair for row in table[1:] if len(row) > 1}
        assert rows.keys() >= KEYS.keys()
        for column, name in ((0, "before"), (1, "after1"), (2, "after2")):
            results = json.loads((data / name / "results.json").read_text())["benchmarks"][benchmark]
            expected = {label: results.get(key) for label, key in KEYS.items()}
            if benchmark == "gsm8k":  # one run was cut later, and all curves go so far
                table = read_evaluation(data / name).benchmarks[benchmark].table
                expected["Area under the curve"] = budget_auc(table, 999)
            expected |= {
                f"{kind.upper()}({k})": value for kind in ("hca", "sca", "cca") for k, value in results[kind].items()
            }
            for label, value in expected.items():
                shown = rows[label][column]
                if value is None:
                    assert shown in ([], ["–"]), label
                    continue
                numbers = [shown[0], *(shown[1].split(" to ") if len(shown) > 1 else [])]
                ends = results.get(f"{KEYS.get(label)}_interval", [])
                assert len(numbers) == 1 + len(ends), label
                for text, exact in zip(numbers, [value, *ends], strict=True):
                    number, tolerance = read_number(text)
                    exact *= 100 if label == "Accuracy gained" else 1
                    assert number == pytest.approx(exact, abs=tolerance, rel=0), label


def test_columns_are_the_runs(page, data):
    figures_of, *_, own = Cells(data / "out" / "report.html").tables
    heads = [head[-1] for head in figures_of[0][1:]]
    assert [head for head, name in zip(heads, NAMES, strict=True) if name] == [name for name in NAMES if name]
    assert figures_of[0][1][0] == "first run, the baseline"
    assert "somebody" not in (data / "out" / "report.html").read_text(encoding="utf-8")
    assert len(own[0]) == 1 + 4  # the other model has no answers to it, and the page says so
    assert "Runs without answers to it" in page.find("section")[1].text
    assert "Runs without answers to it" not in page.find("section")[0].text


def test_forced_answers_are_shown(page, data):
    rows = {row[0][0]: row[1:] for row in Cells(data / "out" / "report.html").tables[0][1:]}
    assert rows["Forced after 64 tokens"][1] == ["25.0%", "66.5 tokens"]
    assert rows["Forced after 128 tokens"][1] == ["75.0%", "90.0 tokens"]
    assert rows["Forced after 128 tokens"][0] == [] and "Hollow marks: measured" in page.find("section")[0].text
    assert "'</think> The answer is'" in page.find("dl", "constants")[0].text


def test_tiles(page, data):
    results = json.loads((data / "before" / "results.json").read_text())["benchmarks"]["gsm8k"]
    tiles = [" ".join(tile.text.split()) for tile in page.find("div", "tile")]
    assert len(tiles) == 3 and tiles[0].startswith("gsm8k 20 questions") and tiles[2].startswith("Corpus")
    assert f"before {results['mean_tokens']:,.1f}" in tiles[0] and "75.0%" in tiles[0] and "+5.0 points" in tiles[0]
    assert re.search(r"change −\d\d\.\d%−\d\d\.\d% to −\d\d\.\d%", tiles[0])
    assert "14 accepted" in tiles[2] and "of 15" in tiles[2]


def test_a_tile_says_whose_figures_it_has_where_they_are_of_another_run_than_the_heading(tmp_path):
    has = {"base": ("own", "gsm8k", "svamp"), "first": ("gsm8k",), "second": ("gsm8k", "svamp")}
    for number, (name, benchmarks) in enumerate(has.items()):
        output = f"<think>\n{'so ' * 9 * number}</think>\nThe answer is 1."
        write_run(tmp_path / name, name, [(of, problem, 0, output) for of in benchmarks for problem in PROBLEMS[:3]])
    folders = [tmp_path / name for name in has]
    page = Page(write_report(tmp_path / "report.html", folders))
    (heading,) = (" ".join(header.text.split()) for header in page.find("header"))
    assert "Before: base. After: first." in heading
    own, gsm8k, svamp = (" ".join(tile.text.split()) for tile in page.find("div", "tile"))
    assert "own 3 questions tokens" in own and "before" not in own and "after" not in own
    assert "gsm8k 3 questions tokens" in gsm8k and "after:" not in gsm8k
    assert "svamp 3 questions, after: second tokens" in svamp
    for tile, name, benchmark in ((gsm8k, "first", "gsm8k"), (svamp, "second", "svamp")):
        results = json.loads((tmp_path / name / "results.json").read_text())["benchmarks"][benchmark]
        assert f"after {results['mean_tokens']:,.1f}" in tile


def test_published_points_stand_only_where_they_belong(page):
    captions = [caption.text for caption in page.find("caption")]
    assert captions.count("Published by others, not measured here") == 1
    own, other = (section.text for section in page.find("section")[:2])
    assert "2505.13975" in own and "CoT-Valve" in own and "CoT-Valve" not in other


def test_cut_at_different_limits_is_said(page):
    first, second = (section.text for section in page.find("section")[:2])
    assert "Not a fair comparison" in first and "512 and at 999 tokens" in " ".join(first.split())
    assert "Not a fair comparison" not in second


# -------------------------------------------------------------------------------------------------------------- runs


def test_seeds_of_a_model_are_also_shown_together(data):
    benchmark = compare([read_evaluation(folder) for folder in runs_of(data, *RUNS)])[0]
    base, one, two, _, both = benchmark.runs
    assert benchmark.headline is both and both.answers is None
    for name in ("accuracy", "mean_tokens", "delta_accuracy", "token_reduction"):
        assert both.figures[name] == pytest.approx((one.figures[name] + two.figures[name]) / 2)
    assert both.figures["n_samples"] == 40 and both.figures["n_questions"] == 20
    low, high = both.figures["token_reduction_interval"]
    assert low < both.figures["token_reduction"] < high
    assert len({run.figures["budget_limit"] for run in benchmark.runs}) == 1 and benchmark.limit == 999
    assert benchmark.limits == [512, 999]


def asked_with(folder, fingerprint="0", **settings):
    """Writes what `drp evaluate` notes of a run with such settings."""
    config = EvaluateConfig("m", str(folder), benchmarks=[str(folder / "problems.jsonl")], **settings)
    write_run_info(folder, "evaluate", config, fingerprints={"m": fingerprint})


def test_runs_that_were_asked_otherwise_are_no_seeds_of_one_another(tmp_path):
    ways = {
        "before": {},
        "seed1": {"seed": 1, "batch_size": 8, "baseline": "before"},
        "reread": {"prompt": "{question} Read it again: {question}"},
        "seed2": {"seed": 2, "samples": 2, "temperature": 0.0, "budgets": [9]},
        "reread2": {"prompt": "{question} Read it again: {question}", "seed": 2},
        "warm": {"temperature": 0.6},
        "retrained": {"seed": 3, "fingerprint": "1"},
    }
    for number, (name, settings) in enumerate(ways.items()):
        output = f"<think>\n{'so ' * 9 * number}</think>\nThe answer is 1."
        model = "base" if name == "before" else "m"
        write_run(tmp_path / name, model, [("b", problem, 0, output) for problem in PROBLEMS[:3]])
        asked_with(tmp_path / name, **settings)
    (benchmark,) = compare([read_evaluation(tmp_path / name) for name in ways])
    alone = ["base", "m (seed1)", "m (reread)", "m (seed2)", "m (reread2)", "m (warm)", "m (retrained)"]
    together = ["m (seed1) + m (seed2)", "m (reread) + m (reread2)"]
    assert [run.name for run in benchmark.runs] == [*alone, *together]
    assert benchmark.headline is benchmark.runs[7]
    means = [each.figures["mean_tokens"] for each in benchmark.runs]
    assert means[7:] == pytest.approx([(means[1] + means[3]) / 2, (means[2] + means[4]) / 2])
    (benchmark,) = compare([read_evaluation(tmp_path / name) for name in ("before", "seed1", "reread")])
    assert [run.name for run in benchmark.runs] == ["base", "m (seed1)", "m (reread)"]
    assert benchmark.headline is benchmark.runs[1]


def test_of_scored_outputs_the_limit_tells_whether_they_are_seeds(tmp_path):
    for name, limit in (("a", 512), ("b", 512), ("c", 512), ("d", 999)):
        answers = [("b", problem, 0, "<think>\nso</think>\nThe answer is 1.") for problem in PROBLEMS[:3]]
        write_run(tmp_path / name, "m", answers, max_tokens=limit)
        write_run_info(tmp_path / name, "score", ScoreConfig([f"{name}.jsonl"], str(tmp_path / name)))
    (benchmark,) = compare([read_evaluation(tmp_path / name) for name in "abcd"])
    assert [run.name for run in benchmark.runs] == ["m (a)", "m (b)", "m (c)", "m (d)", "m (b) + m (c)"]


def test_names_tell_runs_apart():
    def named(*runs):
        return run_names([SimpleNamespace(model=model, folder=Path(folder)) for model, folder in runs])

    assert named(("org/base", "a"), ("/home/me/runs/student", "b")) == ["base", "student"]
    assert named(("a/student", "x"), ("b/student", "y")) == ["a/student", "b/student"]
    assert named(("org/m", "r/0"), ("org/m", "r/1"), ("n", "r/2")) == ["m (0)", "m (1)", "n"]
    assert named(("m", "/r/a/0"), ("m", "/r/b/0")) == ["m (/r/a/0)", "m (/r/b/0)"]
    assert named(("", "x")) == ["(none)"]


def test_runs_that_cannot_be_compared(data, tmp_path):
    def fails(message, *folders):
        with pytest.raises(DRPError, match=message):
            write_report(tmp_path / "report.html", folders)
        assert not (tmp_path / "report.html").exists()

    before, other = runs_of(data, "before", "other")
    fails("other is given twice", before, other, other)
    fails("before has answers to 'own .*and .*other, the first run, has not", other, before)
    fewer = write_run(tmp_path / "fewer", "m", before_answers(PROBLEMS[1:]))
    fails("do not answer the same", other, fewer)
    fails("nowhere has no answers.jsonl", before, tmp_path / "nowhere")
    file = fewer / "results.json"
    results = json.loads(file.read_text())
    del results["benchmarks"]["gsm8k"]["budget_limit"]
    file.write_text(json.dumps(results))
    fails("results.json has no 'budget_limit' of 'gsm8k'", fewer)


# ----------------------------------------------------------------------------------------------------------- answers


def test_questions_that_changed(page, data):
    baseline, student = (read_evaluation(folder).benchmarks["gsm8k"] for folder in runs_of(data, "before", "after1"))
    student = evaluations.align(student, baseline)
    outcomes = {name: len(questions) for name, questions in outcomes_of(baseline, student).items()}
    # Wrong before: 0, 4, 8, 12, 16; after: 1, 6, 11, 16.
    expected = {"got worse": 3, "got better": 4, "right both times": 12, "wrong both times": 1, "as often right": 0}
    assert outcomes == expected
    text = " ".join(page.find("section")[0].text.split())
    assert all(f"{count} {name}" in text for name, count in expected.items() if count)
    assert "as often right" not in text
    pairs = page.find("details", "pair")
    assert [re.search(r": (\D+?) \d", pair.text)[1] for pair in pairs[:9]] == (
        ["got worse"] * 3 + ["got better"] * 3 + ["right both times"] * 2 + ["wrong both times"]
    )
    numbers = [int(re.search(r"Question (\d+):", pair.text)[1]) for pair in pairs[:9]]
    assert numbers[:3] == [2, 7, 12] and numbers[8] == 17
    for pair, number in zip(pairs[:9], numbers, strict=True):
        assert PROBLEMS[number - 1].question in pair.text


def test_both_answers_stand_side_by_side(page, data):
    baseline = read_evaluation(data / "before").benchmarks["gsm8k"]
    first = page.find("article", "answer")[:2]
    row = baseline.row(1)
    before, after = (" ".join(article.text.split()) for article in first)
    assert before.startswith("Before ✓ right") and after.startswith("After ✗ wrong")
    answer_tokens = row["n_tokens"] - row["think_tokens"]
    assert f"{row['n_tokens']} tokens count: {row['think_tokens']} of thinking and {answer_tokens} of answer" in before
    assert "Read as its answer: 99999" in after
    reasoning, response = row["output"].removeprefix("<think>").split("</think>")
    assert reasoning.strip() in first[0].text and response.strip() in first[0].text


def test_several_samples(tmp_path):
    """The sample that is shown is one of those that changed, and it says how many are right."""
    problems = PROBLEMS[:4]
    right = {"before": (2, 0, 2, 1), "after": (1, 2, 2, 1)}  # of two
    answers = {}
    for name, counts in right.items():
        rows = [
            ("b", problem, sample, f"<think>\n{sample}\n</think>\nThe answer is {problem.answer if good else 99999}.")
            for problem, count in zip(problems, counts, strict=True)
            for sample, good in enumerate((count == 2, count > 0))
        ]
        answers[name] = read_evaluation(write_run(tmp_path / name, name, rows)).benchmarks["b"]
    outcomes = outcomes_of(answers["before"], answers["after"])
    assert {name: found.tolist() for name, found in outcomes.items() if len(found)} == {
        "got worse": [0],
        "got better": [1],
        "right both times": [2],
        "as often right": [3],
    }
    worse, better, both, mixed = shown_questions(answers["before"], answers["after"])
    assert (worse.before.n_right, worse.after.n_right, worse.after.n_samples) == (2, 1, 2)
    assert worse.before.row["correct"] and not worse.after.row["correct"] and worse.after.row["sample"] == 0
    assert not better.before.row["correct"] and better.after.row["correct"]
    assert both.number == 3 and mixed.before.row["sample"] == 0
    run = compare([read_evaluation(tmp_path / name) for name in right])[0].runs[1]
    groups = dict(report_figures.figure_groups([run.figures], [{}]))
    labels = {row.label: row for row in groups["Answers"]}
    assert labels["Accuracy"].note == "pass@1" and labels["Pass@2"].cells[0].value == "100.0%"


@pytest.mark.parametrize(
    ("output", "reasoning", "response", "closed"),
    [
        ("<think>\na\n</think>\n\nb", "a", "b", True),
        ("a</think>b", "a", "b", True),
        ("<think>a", "a", "", False),
        ("b", "", "b", True),
        ("", "", "", True),
        ("<think>a</think>b</think>c", "a</think>b", "c", True),
    ],
)
def test_where_thinking_ends(output, reasoning, response, closed):
    shown = shown_answer({"output": output}, 1, 1)
    assert (shown.reasoning, shown.response, shown.closed) == (reasoning, response, closed)


# --------------------------------------------------------------------------------------------------- parts and errors


def test_a_folder_is_no_page(data, tmp_path):
    with pytest.raises(DRPError, match="is a folder: give the page's name, such as .*report.html"):
        write_report(tmp_path, runs_of(data, "other"))
    assert not list(tmp_path.iterdir())


def test_damaged_corpus(data, tmp_path):
    def fails(message):
        with pytest.raises(DRPError, match=message):
            write_report(tmp_path / "report.html", runs_of(data, "other"), tmp_path / "corpus")

    fails("corpus has no raw/.*give a corpus folder")
    write_corpus(tmp_path / "corpus", [hostile_row()])
    file = tmp_path / "corpus" / view_file("raw", "train")
    table = pq.read_table(file)
    pq.write_table(table.drop_columns("steps"), file)
    fails("lacks the column 'steps'")
    step = {"start": 0, "end": 1, "skill": "", "action": "BURN", "rewrite": ""}
    steps = pa.array([[step]], CORPUS_FEATURES.arrow_schema.field("steps").type)
    pq.write_table(table.set_column(table.schema.get_field_index("steps"), "steps", steps), file)
    fails("unknown action .*BURN")
    file.write_text("no Parquet")
    fails("is not a Parquet file")


def test_command(data, tmp_path, monkeypatch, capsys):
    """One run alone, and a corpus in which nothing was accepted: what is not there is left out."""
    rejected = write_corpus(tmp_path / "none", [replace(hostile_row(), accepted=False, reason="wrong answer")])
    output = tmp_path / "new folder" / "page.html"
    arguments = ["drp report", str(data / "other"), "--corpus", str(rejected), "--output", str(output)]
    monkeypatch.setattr("sys.argv", arguments)
    command.cli()
    assert capsys.readouterr().out.strip() == str(output)
    page = Page(output)
    assert len(page.find("section")) == 3 and len(page.find("img")) == 3
    assert not page.find("article") and not page.find("details", "shown-trace")
    assert "Compared with the first run" not in page.find("section")[0].text
    assert "rejected: wrong answer" in page.find("section")[1].text
    assert [element.text for element in page.find("a")] == ["figures", "plots", "corpus", "traces step by step"]


def test_mistakes_are_one_line(tmp_path, capsys):
    for runs in ([str(tmp_path / "nowhere")], []):
        with pytest.raises(SystemExit) as ended:
            run(command.main, command.ReportConfig(runs))
        error = capsys.readouterr().err.strip()
        assert ended.value.code == 2 and error.startswith("error: ") and len(error.splitlines()) == 1


def luminance(colour):
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_in_both_themes():
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3) for every text on every ground it stands on."""
    style = (Path(report_figures.__file__).parent / "assets" / "report.html").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{([^}]*--ink[^}]*)\}", style)
    actions = [action.value.lower() for action in Action]
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent") for ground in ("paper", "page")]
    pairs += [(ink, f"{action}-bg") for action in actions for ink in ("ink", "soft", action)]
    pairs += [(action, "paper") for action in actions]
    for theme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        for ink, ground in pairs:
            dim, bright = sorted((luminance(colours[ink]), luminance(colours[ground])))
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ink, ground)
