import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from drp_hf import plots
from drp_hf.commands import report as command
from drp_hf.commands.parsing import run
from drp_hf.corpus import view_file
from drp_hf.errors import DRPError
from drp_hf.evaluations import align, figures, read_evaluation
from drp_hf.problems import generate
from drp_hf.pruning import prune_trace
from drp_hf.records import CORPUS_FEATURES, Action, CorpusRow, Step, final_response, render_output
from drp_hf.report import corpus_rows, outcome, shown_trace, write_report
from drp_hf.store import write_parquet
from drp_hf.teachers.slicing import SlicingTeacher
from drp_hf.verbose_traces import verbose_trace

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'></div></html><!-- {{ 7 * 7 }} &amp;"
VOID = {"meta", "img", "source", "link", "br", "input"}


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


def write_evaluation(folder, answers, **results):
    folder.mkdir()
    lines = [json.dumps(row) + "\n" for row in answers]
    (folder / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    described = {"model": f"/home/somebody/runs/{folder.name}", "problems": "test.jsonl", "max_tokens": 512, **results}
    (folder / "results.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def answer(problem, output, correct=True, finished=True):
    # What the file says of an answer has to agree with its text, for a test compares it with the metric.
    output += "" if correct else " No, wait. The answer is 99999."
    return {
        "question": problem.question,
        "answer": problem.answer,
        "output": output,
        "n_tokens": count_tokens(output),
        "finished": finished,
        "correct": correct,
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A corpus of 14 accepted rows and a rejected one; a baseline and two students on 20 problems."""
    folder = tmp_path_factory.mktemp("report")
    rows = [corpus_row(problem, number) for number, problem in enumerate(generate(13, "train", 0))]
    assert all(row.accepted for row in rows)
    rejected = replace(rows[0], accepted=False, steps=[], completion="", reason="wrong answer: 1 for 2")
    write_corpus(folder / "corpus", [*rows, rejected, hostile_row()])
    problems = list(generate(20, "test", 0))
    before = [answer(p, verbose_trace(p, n).output, correct=n % 4 != 0) for n, p in enumerate(problems)]
    write_evaluation(folder / "before", before)
    for seed in (1, 2):
        after = [answer(p, corpus_row(p, seed).completion, correct=n % 5 != seed) for n, p in enumerate(problems)]
        for row in after:
            row["output"] = HOSTILE + row["output"]
        write_evaluation(folder / f"after{seed}", list(reversed(after)))
    return folder


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


@pytest.fixture(scope="module")
def page(data):
    path = write_report(
        data / "out" / "report.html", data / "corpus", data / "before", [data / "after1", data / "after2"]
    )
    return Page(path)


def test_page_fetches_nothing(page):
    for element in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert element.attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), element
        assert not any(name.startswith("on") for name in element.attributes)
    assert not {"script", "link", "iframe", "object", "base"} & {element.tag for element in page.elements}
    (style,) = page.find("style")
    assert "url(" not in style.text and "@import" not in style.text


def test_links_lead_somewhere(page):
    targets = {element.attributes.get("id") for element in page.elements}
    links = [element.attributes["href"] for element in page.find("a")]
    assert len(links) == 5 and {link.removeprefix("#") for link in links} <= targets


def test_model_text_is_escaped(page):
    assert len(page.find("img")) == 2 and not page.find("script")
    hostile = next(element for element in page.find("details", "shown-trace") if HOSTILE in element.text)
    # Question, model, kept text, rewrite, four skills, response, completion (twice) and the fall-back.
    assert hostile.text.count(HOSTILE) == 12
    answers = [element.text for element in page.find("article", "answer")]
    assert answers and sum(HOSTILE in text for text in answers) == len(answers) / 2


def test_ten_traces_in_full(page, data):
    traces = page.find("details", "shown-trace")
    assert len(traces) == 10 and all("open" in trace.attributes for trace in traces)
    rows = [row for row in corpus_rows(data / "corpus") if row.accepted]
    assert len(rows) == 14
    shown = [row for row in rows if any(row.question in trace.text for trace in traces)]
    assert len(shown) == 10
    for row in shown:
        (trace,) = [trace for trace in traces if row.question in trace.text]
        assert row.completion in trace.text
        for step in row.steps:
            assert row.reasoning[step.start : step.end].strip() in trace.text
    kept = [int(re.search(r"(\d+) %", trace.text)[1]) for trace in traces]
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


def test_plots_are_pictures(page, data):
    sources = [element.attributes["src"] for element in page.find("img")]
    dark = [element.attributes["srcset"] for element in page.find("source")]
    assert len(sources) == len(dark) == 2 and not set(sources) & set(dark)
    for source in sources + dark:
        with Image.open(BytesIO(base64.b64decode(source.partition(",")[2], validate=True))) as picture:
            assert picture.format == "PNG"
            picture.load()
            assert min(picture.size) > 300 and len(set(picture.convert("L").tobytes())) > 20
    beside = [(data / "out" / f"report_{name}.png").read_bytes() for name in ("lengths", "skills")]
    assert beside == [base64.b64decode(source.partition(",")[2]) for source in sources]


def test_plots_take_long_tails_and_odd_skills():
    for lengths in ([900, 1000, 200_000], [5], [0, 0]):
        assert plots.length_histogram(lengths, [3, 4, 4]).startswith(b"\x89PNG")
    skills = {(f"$x^{'y' * number} $", action): number for number in range(1, 40) for action in Action}
    assert plots.skill_bars(skills).startswith(b"\x89PNG")
    assert plots.skill_bars(skills) == plots.skill_bars(skills) != plots.skill_bars(skills, theme="dark")


def test_figures_are_those_of_the_metric(data):
    from drp_hf.metrics.token_efficiency.token_efficiency import TokenEfficiency

    baseline = read_evaluation(data / "before")
    student = align(read_evaluation(data / "after1"), baseline)
    columns = {"predictions": "output", "n_tokens": "n_tokens", "finished": "finished"}
    inputs = {name: [row[field] for row in student.answers] for name, field in columns.items()}
    inputs |= {f"baseline_{name}": [row[field] for row in baseline.answers] for name, field in columns.items()}
    expected = TokenEfficiency().compute(references=[row["answer"] for row in baseline.answers], **inputs)
    found = figures([student], baseline)
    for name, value in found.items():
        assert value == pytest.approx(expected[name]), name
    assert found["accuracy"] == 0.8 and found["delta_accuracy"] == pytest.approx(0.05)


def test_runs_of_a_question_are_not_independent(data):
    baseline = read_evaluation(data / "before")
    one, two = (align(read_evaluation(data / f"after{seed}"), baseline) for seed in (1, 2))
    thrice, once = figures([one, one, one], baseline), figures([one], baseline)
    assert all(thrice[name] == pytest.approx(value) for name, value in once.items())
    both = figures([one, two], baseline)
    assert both["mean_tokens"] == pytest.approx((figures([one])["mean_tokens"] + figures([two])["mean_tokens"]) / 2)
    low, high = both["token_reduction_interval"]
    assert low < both["token_reduction"] < high


def test_table_and_outcomes(page, data):
    rows = page.find("table", "models")[0].text
    assert all(text in rows for text in ("before", "after, run 1", "after, run 2", "after, all 2 runs"))
    assert "somebody" not in rows and "runs/before" in rows
    assert "75.0 %" in rows and "80.0 %" in rows and "+5.0" in rows
    baseline = read_evaluation(data / "before")
    student = align(read_evaluation(data / "after1"), baseline)
    outcomes = [outcome(*pair) for pair in zip(baseline.answers, student.answers, strict=True)]
    text = " ".join(page.find("section")[-1].text.split())
    for name in set(outcomes):
        assert f"{outcomes.count(name)} {name}" in text
    assert {"got worse", "got better", "right both times"} <= set(outcomes)
    assert len(page.find("article", "answer")) == 2 * len(re.findall(r"Problem \d+:", text))
    assert "Problem 6: " not in text or "got worse" in text


def test_cut_at_different_limits_is_said(data, tmp_path):
    answers = read_evaluation(data / "before").answers
    other = write_evaluation(tmp_path / "other", answers, max_tokens=999)
    text = write_report(tmp_path / "a.html", None, data / "before", [other]).read_text(encoding="utf-8")
    assert "Not a fair comparison" in text and "512 and at 999" in text


def test_half_a_character_is_written(data, tmp_path):
    answers = read_evaluation(data / "before").answers
    halves = [{**row, "output": "half \ud83d of it"} for row in answers]
    other = write_evaluation(tmp_path / "other", halves)
    assert "half ? of it" in write_report(tmp_path / "a.html", None, data / "before", [other]).read_text(
        encoding="utf-8"
    )


def test_parts_can_be_missing(data, tmp_path):
    alone = Page(write_report(tmp_path / "alone.html", None, data / "before"))
    assert len(alone.find("section")) == 1 and not alone.find("img")
    few = write_corpus(tmp_path / "few", [corpus_row(problem, 1) for problem in generate(3, "train", 1)])
    page = Page(write_report(tmp_path / "few.html", few, data / "before", [data / "after1"]))
    assert len(page.find("details", "shown-trace")) == 3
    rejected = replace(hostile_row(), accepted=False, reason="wrong answer")
    none = write_corpus(tmp_path / "none", [rejected])
    page = Page(write_report(tmp_path / "none.html", none, data / "before", [data / "after1"]))
    assert not page.find("details", "shown-trace") and "rejected: wrong answer" in page.find("section")[2].text


def damage(data, tmp_path, name, change):
    """A copy of the baseline's folder, one of its files changed."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in ("answers.jsonl", "results.json"):
        text = (data / "before" / file).read_bytes()
        (folder / file).write_bytes(change(text) if file == name else text)
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "answers.jsonl",
            lambda text: text.replace(b'"n_tokens"', b'"tokens"', 1),
            r"answers.jsonl row 1 has no .*n_tok",
        ),
        ("answers.jsonl", lambda text: text + b'{"question": \n', "answers.jsonl row 21 is not JSON"),
        ("answers.jsonl", lambda text: text + b"\xff\n", "answers.jsonl row 21 is not JSON"),
        ("answers.jsonl", lambda text: text + b"[1]\n", "answers.jsonl row 21 has no field 'question'"),
        ("answers.jsonl", lambda text: text.replace(b": false", b": 0", 1), "'correct' is 0 and not bool"),
        ("answers.jsonl", lambda text: b"", "answers.jsonl is empty"),
        ("results.json", lambda text: text.replace(b"max_tokens", b"limit"), "results.json has no field 'max_tokens'"),
        ("answers.jsonl", lambda text: text.partition(b"\n")[2], "do not answer the same problems .1 differ"),
    ],
)
def test_damaged_evaluation(data, tmp_path, name, change, message):
    folder = damage(data, tmp_path, name, change)
    with pytest.raises(DRPError, match=message):
        write_report(tmp_path / "report.html", None, data / "before", [folder])
    assert not (tmp_path / "report.html").exists()


def test_damaged_corpus(data, tmp_path):
    def fails(message):
        with pytest.raises(DRPError, match=message):
            write_report(tmp_path / "report.html", tmp_path / "corpus", data / "before")

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


def test_command(data, tmp_path, capsys):
    output = tmp_path / "new folder" / "page.html"
    runs = [str(data / name) for name in ("before", "after1")]
    assert run(command.main, command.ReportConfig(runs, str(data / "corpus"), str(output))) == output
    assert capsys.readouterr().out.strip() == str(output) and output.is_file()
    for runs in ([str(tmp_path / "nowhere")], []):
        with pytest.raises(SystemExit) as ended:
            run(command.main, command.ReportConfig(runs))
        error = capsys.readouterr().err.strip()
        assert ended.value.code == 2 and error.startswith("error: ") and len(error.splitlines()) == 1


def test_command_line(data, tmp_path, monkeypatch):
    names = [str(data / name) for name in ("before", "after1", "after2")]
    output = tmp_path / "page.html"
    arguments = ["drp report", *names, "--corpus", str(data / "corpus"), "--output", str(output)]
    monkeypatch.setattr("sys.argv", arguments)
    command.cli()
    assert "after, all 2 runs" in output.read_text(encoding="utf-8")


def luminance(colour):
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_in_both_themes():
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3) for every text on every ground it stands on."""
    style = (Path(plots.__file__).parent / "assets" / "report.html").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    actions = [action.value.lower() for action in Action]
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent") for ground in ("paper", "page")]
    pairs += [(ink, f"{action}-bg") for action in actions for ink in ("ink", "soft", action)]
    pairs += [(action, "paper") for action in actions]
    for theme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        for ink, ground in pairs:
            dim, bright = sorted((luminance(colours[ink]), luminance(colours[ground])))
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ink, ground)
