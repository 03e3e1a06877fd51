"""The study: its arms can be run, its alternatives are what they say, and its tables follow from its results."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from trl import ModelConfig

from drp_hf.commands.dpo import DPOArguments, PairConfig
from drp_hf.commands.parsing import parse
from drp_hf.commands.prune import PruneConfig, check
from drp_hf.commands.sft import SFTArguments
from drp_hf.drp_config import DRPConfig
from drp_hf.embedded import STUDENT_PROMPT
from drp_hf.errors import DRPError
from drp_hf.plots import draw_frontier, frontier
from drp_hf.problems import generate
from drp_hf.records import THINK_CLOSE
from drp_hf.segment import segment
from drp_hf.statistics import bootstrap_intervals
from drp_hf.store import content_key
from drp_hf.verbose_traces import verbose_trace
from recipes.experiment.stages import read_settings
from recipes.study import __main__ as study
from recipes.study import texts, twins
from recipes.study.arms import FOLDER, choose, read_arms
from recipes.study.material import PROBLEM_SEED, Material, StudyConfig, alone, run_recipe
from recipes.study.plots import learnability_plot, pareto_plot
from recipes.study.results import (
    TESTS,
    Answers,
    Result,
    compare,
    read_result,
    read_results,
    reasoner_of,
    result_file,
    write_result,
)
from recipes.study.table import TableConfig, read_tables, repeats_table, tables

ROOT = FOLDER.parents[1]
SFT, DPO = (SFTArguments, DRPConfig, ModelConfig), (DPOArguments, PairConfig, ModelConfig)
ARMS = read_arms()


# --------------------------------------------------------------------------------------------------------- arms


def test_arms_are_in_an_order_in_which_they_can_be_run():
    names = list(ARMS)
    for arm in ARMS.values():
        assert {arm.after, arm.student_of} <= {None, *ARMS}
        assert arm.budget_of is None or names.index(arm.budget_of) < names.index(arm.name)
    assert {arm.group for arm in ARMS.values()} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("arm", ARMS.values(), ids=lambda arm: arm.name)
def test_the_settings_of_an_arm_are_those_of_its_commands(arm, tmp_path):
    assert arm.texts is None or callable(getattr(texts, arm.texts))
    file = tmp_path / "config.yaml"
    if arm.prune is not None:
        file.write_text(
            yaml.safe_dump({**read_settings(FOLDER / "prune.yaml"), "traces": "t", "output_dir": "o", **arm.prune})
        )
        check(parse(PruneConfig, ["--config", str(file)]))
    if arm.trained:
        stage, types, own = ("dpo", DPO, arm.dpo) if arm.after else ("sft", SFT, arm.sft)
        settings = {"dataset": "d", "model_name_or_path": "m", "output_dir": str(tmp_path)}
        file.write_text(yaml.safe_dump({**read_settings(FOLDER / f"{stage}.yaml"), **settings, **own}))
        parse(types, ["--config", str(file)])


def test_unknown_arms_and_settings_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DRPError, match="no arm 'drp': choose among"):
        choose(["drp"], ARMS)
    monkeypatch.setattr("recipes.study.arms.FOLDER", tmp_path)
    (tmp_path / "arms").mkdir()
    (tmp_path / "arms" / "1_it.yaml").write_text("title: it\nlength: x\n")
    with pytest.raises(DRPError, match=r"1_it.yaml has no use for length"):
        read_arms()


def test_a_failed_command_is_said(tmp_path):
    with pytest.raises(DRPError, match=r"drp prune --config .*corpus\.prune\.yaml ended with status 2"):
        run_recipe("prune", "prune", tmp_path / "corpus", {"traces": str(tmp_path / "none.jsonl")})


# -------------------------------------------------------------------------------------------------- alternatives


@pytest.fixture(scope="module")
def material(smollm2_tokenizer):
    """Verbose traces of the generator, each with a wrong and a longer sample beside it, pruned to 100 tokens."""
    problems = list(generate(12, seed=5))
    right = [verbose_trace(problem) for problem in problems]
    wrong = [replace(trace, response="The answer is 0.") for trace in right]
    longer = [replace(trace, reasoning=f"Okay, okay.\n\n{trace.reasoning}") for trace in right]
    return SimpleNamespace(
        problems=problems,
        greedy=[*wrong[:2], None, *right[3:]],
        samples=[list(samples) for samples in zip(wrong, longer, right, strict=True)],
        right=right,
        pruned={trace.question: trace.output for trace in right[:10]},
        pruned_lengths={trace.question: 100 for trace in right[:10]},
        tokenizer=smollm2_tokenizer,
        count_tokens=lambda text: len(smollm2_tokenizer(text, add_special_tokens=False)["input_ids"]),
    )


def reasoning_of(completion: str) -> str:
    return completion.removeprefix("<think>\n").partition(f"\n{THINK_CLOSE}")[0]


def test_whole_traces(material):
    assert [question for question, _ in texts.raw(material)] == [
        trace.question for trace in material.greedy if trace is not None
    ]
    assert list(texts.right(material)) == [(trace.question, trace.output) for trace in material.right]
    assert list(texts.shortest(material)) == [(trace.question, trace.output) for trace in material.right]


def test_cut_after_the_first_right_answer(material):
    for trace, (question, completion) in zip(material.right, texts.first_answer(material), strict=True):
        kept = reasoning_of(completion)
        assert question == trace.question
        assert trace.reasoning.startswith(kept) and len(kept) < len(trace.reasoning)
        assert segment(kept)[-1].text.rstrip(". ").endswith(trace.answer)
        assert completion.endswith(f"{THINK_CLOSE}\n\nThe answer is {trace.answer}.")


def test_random_sentences_are_deleted_to_the_length_of_the_pruned_trace(material):
    pairs = list(texts.random_sentences(material))
    assert pairs == list(texts.random_sentences(material))
    assert len(pairs) == 10
    for trace, (_, completion) in zip(material.right, pairs, strict=False):
        assert 60 < material.count_tokens(completion) <= 100
        left = [unit.text.strip() for unit in segment(trace.reasoning)]
        for sentence in (unit.text.strip() for unit in segment(reasoning_of(completion))):
            assert sentence in left
            left = left[left.index(sentence) + 1 :]


def test_the_least_informative_tokens_are_deleted(material):
    pairs = list(texts.informative_tokens(material))
    assert len(pairs) == 10
    for trace, (_, completion) in zip(material.right, pairs, strict=False):
        assert 90 < material.count_tokens(completion) < 110
        characters = iter(trace.reasoning)
        assert all(character in characters for character in reasoning_of(completion))


def test_what_the_reasoner_fails_more_often_is_learnt_more_often(material):
    # Of every question's traces one is wrong and a fourth is missing.
    pairs = list(texts.pruned_by_failures(material))
    assert len(pairs) == 3 * len(material.pruned)
    assert set(pairs) == set(material.pruned.items())


def test_the_prompt_of_an_arm_is_trained_with(tmp_path):
    material = Material(StudyConfig(output_dir=str(tmp_path), train_problems=3))
    plain = study.learnt_rows(ARMS["4_terse"], material)
    assert study.learnt_rows(ARMS["4_terse_taught_reread"], material) == [
        (f"{question} {question}", completion) for question, completion in plain
    ]
    assert len(plain) == 3


@pytest.mark.parametrize("name", ["4_terse", "4_terse_taught_reread"])
def test_the_student_is_trained_with_the_prompt_that_the_rows_are_counted_with(name, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(study, "run_recipe", lambda stage, recipe, output_dir, settings: ran.append((stage, settings)))
    study.train(ARMS[name], 3, Material(StudyConfig(output_dir=str(tmp_path), train_problems=3)), ARMS)
    ((stage, settings),) = ran
    assert stage == "sft" and settings["seed"] == 3
    assert settings.get("prompt") == ARMS[name].prompt


def test_terse_solutions_are_the_equations(material):
    for problem, (question, completion) in zip(material.problems, texts.terse(material), strict=True):
        assert question == problem.question
        assert reasoning_of(completion).splitlines() == [step.equation for step in problem.computations]


# ------------------------------------------------------------------------------------------------------- results


@contextmanager
def meanwhile(path, make):
    """What happens while `make` waits for another process that is at `path`; at the end `make` comes to its own."""
    said = StringIO()  # not capsys, which loses what is written while it empties what it has read
    with redirect_stderr(said), ThreadPoolExecutor() as threads:
        with alone(path):
            here = threads.submit(make)
            while "waiting for it" not in said.getvalue():
                assert not here.done()
                sleep(0.01)
            assert path.name in said.getvalue()
            yield
        here.result()


def test_what_another_process_is_at_comes_last_and_is_not_made_again(tmp_path, monkeypatch):
    config = StudyConfig(["4_terse", "5_drp"], [0], str(tmp_path / "run"), str(tmp_path / "results"))
    made = []
    monkeypatch.setattr(study, "print_tables", lambda folder: None)

    def make_result(arm, seed, material, arms):
        made.append(arm.name)
        return replace(STUDENTS[0], arm=arm.name, seed=seed, settings=arm.settings)

    monkeypatch.setattr(study, "make_result", make_result)
    with meanwhile(tmp_path / "run" / "arms" / "4_terse-0", lambda: study.main(config)):
        assert made == ["5_drp"]
        write_result(config.results_dir, replace(STUDENTS[0], arm="4_terse", settings=ARMS["4_terse"].settings))
    assert made == ["5_drp"]
    assert set(read_results(config.results_dir)) == {"4_terse", "5_drp"}


SHARED = {
    "rollout": ("traces.jsonl", lambda material: material.greedy),
    f"corpora/{content_key({})[:8]}": ("README.md", lambda material: material.corpus({})),
    "texts/terse": ("train.jsonl", lambda material: material.texts("terse")),
    "students/4_terse-0": ("trainer_state.json", lambda material: study.train(ARMS["4_terse"], 0, material, ARMS)),
    "nll/key.json": ("", lambda material: study.nll([("q", "c")], "key", material)),
}


@pytest.mark.parametrize("path", SHARED)
def test_what_another_process_makes_is_waited_for_and_used(path, tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.study.material.run_stage", None)
    monkeypatch.setattr(study, "Likelihood", None)
    monkeypatch.setattr(texts, "terse", None)
    last, make = SHARED[path]
    material = Material(StudyConfig(output_dir=str(tmp_path), train_problems=1))
    with meanwhile(tmp_path / path, lambda: make(material)):
        file = tmp_path / path / last
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"question": "q", "answer": "1", "output": "o"} if path == "rollout" else 1) + "\n")


def test_what_another_process_has_left_is_made(tmp_path):
    with pytest.raises(KeyboardInterrupt), alone(tmp_path / "it"):
        raise KeyboardInterrupt
    with alone(tmp_path / "it", wait=False):
        pass


def result(arm: str, seed: int, right: list[int], tokens: list[int], asked: str = "q", training=None) -> Result:
    answers = Answers(np.array(right), np.array(tokens))
    tests = ("heldout", "unseen", "svamp")
    made = {"fingerprints": dict.fromkeys(tests, asked), "date": "2020-01-01", "machine": "CPU"}
    return Result(arm, seed, {}, training or {}, made, dict.fromkeys(tests, answers))


REASONER = result("1_reasoner", 0, [1, 1, 0, 0], [200, 300, 200, 300])
STUDENTS = [
    result("5_drp", 0, [1, 1, 1, 0], [100, 100, 100, 100], training={"nll": 0.3, "tokens": 1000, "rows": 7}),
    result("5_drp", 1, [1, 0, 1, 0], [50, 50, 50, 50], training={"nll": 0.3, "tokens": 1000, "rows": 7}),
]


def test_results_are_read_as_they_were_written(tmp_path):
    for each in STUDENTS:
        write_result(tmp_path, each)
    found = read_results(tmp_path)["5_drp"]
    assert [each.seed for each in found] == [0, 1]
    for ours, theirs in zip(STUDENTS, found, strict=True):
        assert theirs.tests["svamp"].right.tolist() == ours.tests["svamp"].right.tolist()
        assert theirs.tests["svamp"].tokens.tolist() == ours.tests["svamp"].tokens.tolist()
        assert theirs.training == ours.training


def test_a_file_that_is_no_result_is_named(tmp_path):
    (tmp_path / "5_drp-0.json").write_text('{"arm": "5_drp"}')
    with pytest.raises(DRPError, match="5_drp-0.json holds no result"):
        read_result(result_file(tmp_path, "5_drp", 0))


def test_seeds_are_averaged_question_by_question():
    found = compare(STUDENTS, REASONER, "heldout")
    assert (found.accuracy, found.gained, found.kept, found.tokens) == (0.625, 0.125, 0.75, 75)
    assert found.saved == pytest.approx(0.7)
    assert found.by_seed == [0.75, 0.5]
    assert found.tokens_per_right == pytest.approx(120)
    # ΔL = 0.7, ΔA = 0.125 / 0.5: 0.7 + 3 · 0.25
    assert found.aes == pytest.approx(1.45)
    # Between all four questions the second (-0.5) and all the third (+1).
    assert found.gained_interval[0] == pytest.approx(-0.375, abs=0.13)
    assert found.gained_interval[1] == pytest.approx(0.75, abs=0.26)


def test_other_questions_are_not_compared():
    with pytest.raises(DRPError, match="5_drp-0 and the reasoner answered other questions of heldout"):
        compare([result("5_drp", 0, [1, 1, 1, 0], [1, 1, 1, 1], asked="others")], REASONER, "heldout")


def test_tables_say_what_the_results_say():
    first, second = tables({"1_reasoner": [REASONER], "5_drp": STUDENTS})
    row = next(line for line in first.splitlines() if "skill-aware" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")][:3] == [
        "`5_drp` skill-aware steps",
        "75",
        "70%",
    ]
    assert "75.0, 50.0" in row and "62.5%" in row and "+12.5 (" in row and "+1.45" in row and "1,000" in row
    assert second.count("70%") == 2
    dpo = [replace(each, arm="5_drp_dpo", training={**each.training, "tokens": 20}) for each in STUDENTS]
    first, _ = tables({"1_reasoner": [REASONER], "5_drp": STUDENTS, "5_drp_dpo": dpo})
    row = next(line for line in first.splitlines() if "DPO" in line)
    assert "1,020" in row  # and the training of the student that it goes on from
    assert pareto_plot({"1_reasoner": [REASONER], "5_drp": STUDENTS}).startswith(b"\x89PNG")
    assert learnability_plot({"1_reasoner": [REASONER], "5_drp": STUDENTS}).startswith(b"\x89PNG")


def test_the_frontier_of_all_arms_is_drawn_over_their_tokens(monkeypatch):
    drawn = []

    def spied(axes, points):
        drawn.append(frontier(points))
        return draw_frontier(axes, points)

    monkeypatch.setattr("recipes.study.plots.draw_frontier", spied)
    pareto_plot({"1_reasoner": [REASONER], "5_drp": STUDENTS})
    assert drawn == [[(75, 12.5)]] * 2
    learnability_plot({"1_reasoner": [REASONER], "5_drp": STUDENTS})
    assert len(drawn) == 2


def test_repeats_stand_beside_what_they_repeat(tmp_path):
    first = {"1_reasoner": [REASONER], "5_drp": STUDENTS}
    made = STUDENTS[1].made | {"date": "2020-01-02", "machine": "H200"}
    again = replace(result("5_drp", 1, [1, 1, 0, 1], [100, 100, 100, 100]), made=made)
    rows = repeats_table(first, {"5_drp": [again]}).splitlines()[2:]
    assert len(rows) == 3
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells[:5] == ["`5_drp`, 1", "CPU, 2020-01-01", "held-out", "50.0", "50.0%"]
    assert cells[6:9] == ["H200, 2020-01-02", "100.0", "75.0%"] and cells[9].startswith("+25.0 (")
    assert cells[10] == "3"
    with pytest.raises(DRPError, match="5_drp-1 was made again, but there is no first result of it"):
        repeats_table({"1_reasoner": [REASONER], "5_drp": STUDENTS[:1]}, {"5_drp": [again]})
    for each in (REASONER, *STUDENTS):
        write_result(tmp_path, each)
    write_result(tmp_path / "repeats", again)
    assert read_tables(tmp_path) == [*tables(first), repeats_table(first, {"5_drp": [again]})]


def test_every_result_says_how_when_and_where_it_was_made():
    for results in (read_results(FOLDER / "results"), read_results(FOLDER / "results" / "repeats")):
        for result in (result for of_arm in results.values() for result in of_arm):
            assert set(result.made) == {"command", "date", "machine", "versions", "fingerprints"}


def test_every_result_s_summary_is_that_of_its_answers(tmp_path):
    for file in sorted((FOLDER / "results").rglob("*.json")):
        result = read_result(file)
        write_result(tmp_path, result)
        again = result_file(tmp_path, result.arm, result.seed)
        assert again.read_text(encoding="utf-8") == file.read_text(encoding="utf-8"), file


def test_every_repeat_is_inside_the_interval_of_what_it_repeats():
    results, repeats = read_results(FOLDER / "results"), read_results(FOLDER / "results" / "repeats")
    assert repeats
    for again in (result for of_arm in repeats.values() for result in of_arm):
        first = next(result for result in results[again.arm] if result.seed == again.seed)
        for test in TESTS:
            low, high = compare([first], reasoner_of(results), test).gained_interval
            assert low <= compare([again], reasoner_of(results), test).gained <= high


def test_the_readme_s_tables_are_what_the_result_files_say():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for table in read_tables(FOLDER / "results"):
        assert table in readme, "put what `python -m recipes.study.table` prints into README.md"


@pytest.mark.parametrize(
    ("better", "worse", "test", "seeds", "told_apart"),
    [
        ("5_drp_nll", "5_drp", "heldout", "012", True),
        ("5_drp_nll", "5_drp", "heldout", "0", False),
        ("5_drp_nll", "5_drp", "unseen", "012", False),
        ("5_drp_nll", "2_right", "heldout", "012", False),
        ("5_drp_failures", "5_drp", "heldout", "012", False),
        ("5_drp", "5_drp_failures", "unseen", "012", False),
        ("5_drp", "5_drp_failures", "unseen", "01", True),
        *(
            (arm, "5_drp", test, "012", False)
            for arm in ("5_drp_plain", "5_drp_dpo")
            for test in ("heldout", "unseen")
        ),
        ("5_drp_reread", "5_drp", "unseen", "012", True),
        ("5_drp_taught_reread", "5_drp_reread", "unseen", "012", False),
        ("5_drp_goal_taught_reread", "5_drp_taught_reread", "unseen", "012", False),
        ("5_drp_goal_taught_reread", "5_drp_reread", "unseen", "012", True),
        ("5_drp", "5_drp_reread", "heldout", "012", True),
        ("4_terse", "4_terse_reread", "heldout", "012", True),
        ("4_terse_taught_reread", "5_drp_goal_taught_reread", "unseen", "012", False),
        ("4_terse_taught_reread", "5_drp_bare_taught_reread", "heldout", "012", True),
    ],
)
def test_the_differences_between_arms_that_readme_tells_from_chance(better, worse, test, seeds, told_apart):
    results = read_results(FOLDER / "results")
    right, others = (
        np.mean([each.tests[test].right for each in results[name] if str(each.seed) in seeds], axis=0)
        for name in (better, worse)
    )
    low, high = bootstrap_intervals((right - others)[:, None], lambda means: {"more": means[:, 0]})["more"]
    assert (low > 0) == told_apart and high > 0


def test_what_readme_says_of_the_twins(capsys):
    twins.main(TableConfig())
    rows = {row.split("`")[1]: row for row in capsys.readouterr().out.splitlines()[2:]}
    assert rows.keys() == read_results(FOLDER / "results").keys()
    assert "| 82.9% | +1.6 (-0.7 to +4.0) |" in rows[RELEASED]
    assert "| 78.5% | -2.8 (-6.7 to +1.0) |" in rows["4_terse"]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "110 of the 500" in readme and "gains 1.6 points (-0.7 to +4.0) and has 82.9 % right" in readme
    assert "`4_terse` 78.5 % (-2.8, -6.7 to +1.0)" in readme
    with pytest.raises(DRPError, match="5_drp-0 has 4 held-out answers, the study 500"):
        twins.among(STUDENTS, twins.heldout_twins())


def test_a_twin_differs_from_a_training_question_in_words_alone():
    train = {(each.family, each.question.count(" "), each.answer) for each in generate(1000, "train", PROBLEM_SEED)}
    heldout = list(generate(500, "test", PROBLEM_SEED))
    twin = twins.heldout_twins()
    assert sum(twin) == 110
    for each in (problem for problem, is_twin in zip(heldout, twin, strict=True) if is_twin):
        assert (each.family, each.question.count(" "), each.answer) in train


RELEASED = "5_drp_goal_taught_reread"


def test_the_released_student_s_card_says_what_its_result_file_says():
    rows = (ROOT / "model_cards" / "quickstart_student.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")][2:] for row in rows if row.startswith("| ")][1:]
    models = [read_result(result_file(FOLDER / "results", arm, 0)) for arm in ("1_reasoner", RELEASED)]
    for test, (right, tokens) in zip(("heldout", "unseen"), (cells[:2], cells[2:]), strict=True):
        assert right == [f"{100 * model.tests[test].right.mean():.1f} %" for model in models]
        assert tokens == [f"{model.tests[test].tokens.mean():.0f}" for model in models]
    assert ARMS[RELEASED].prompt == STUDENT_PROMPT


def test_without_the_reasoner_there_is_nothing_to_compare_with():
    with pytest.raises(DRPError, match="no result of 1_reasoner yet"):
        tables({"5_drp": STUDENTS})


# ---------------------------------------------------------------------------------------------------- everything


KINDS = ("1_reasoner", "1_budget", "3_random", "5_drp", "5_drp_reread")
"""An arm of every way in which one comes to be, but DPO, which takes its 50 steps also here."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_runs_and_goes_on(tmp_path):
    (tmp_path / "svamp.jsonl").write_text(
        "".join(json.dumps({"question": f"What is {n} plus 2?", "answer": str(n + 2)}) + "\n" for n in range(3))
    )
    sizes = {"train_problems": 6, "heldout_problems": 2, "unseen_problems": 1, "svamp_problems": 1}
    config = StudyConfig(
        output_dir=str(tmp_path / "run"), results_dir=str(tmp_path / "results"), svamp=str(tmp_path / "svamp.jsonl")
    )
    settings = {**vars(config), **sizes, "seeds": [0], "arms": KINDS}
    flags = [
        text
        for name, value in settings.items()
        for text in (f"--{name}", *map(str, value if isinstance(value, (list, tuple)) else [value]))
    ]
    command = [sys.executable, "-m", "recipes.study", *flags]
    # Two at once, with a thread each: their threads would wait for one another on few cores.
    sharing = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "capture_output": True, "text": True}
    with ThreadPoolExecutor() as threads:
        both = list(threads.map(lambda _: subprocess.run(command, **sharing), range(2)))
    for done in both:
        assert done.returncode == 0, done.stderr[-3000:]
    begun = [line.strip("─ ") for done in both for line in done.stderr.splitlines() if ", seed " in line]
    assert sorted(begun) == [f"{name}, seed 0" for name in sorted(KINDS)]
    assert set(read_results(tmp_path / "results")) == set(KINDS)
    assert all(ARMS[name].title in done.stdout for name in KINDS for done in both)
    asked = yaml.safe_load((tmp_path / "run" / "answers" / "5_drp_reread-0.evaluate.yaml").read_text())
    assert asked["prompt"] == ARMS["5_drp_reread"].prompt
    before = {file.name: file.stat().st_mtime_ns for file in Path(tmp_path / "results").iterdir()}
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout
    assert all(done.stdout.endswith(again.stdout) for done in both)
    assert {file.name: file.stat().st_mtime_ns for file in Path(tmp_path / "results").iterdir()} == before
    once_more = subprocess.run(
        [*command, "--arms", "1_reasoner", "--repeat"], cwd=ROOT, capture_output=True, text=True
    )
    assert once_more.returncode == 0, once_more.stderr[-3000:]
    first, repeated = (read_results(tmp_path / "results" / folder) for folder in ("", "repeats"))
    assert list(repeated) == ["1_reasoner"]
    assert repeats_table(first, repeated) in once_more.stdout
