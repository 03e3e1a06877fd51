"""Samples of lm-evaluation-harness (`--log_samples`), versions 0.4.

A file `samples_<task>_<date>.jsonl` has a row for each document and filter, with all raw responses (`resps`) in each:
they are read once. `results_<date>.json` beside it names the model.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drp_hf.errors import DRPError
from drp_hf.outputs.output import Output, Outputs, bare_golds, name_of, need, one_run
from drp_hf.records import whole
from drp_hf.tables import Table

SAMPLES = {"doc", "target", "arguments", "resps"}
"""Columns by which the format is recognised."""
QUESTIONS = ("question", "problem", "query", "prompt", "input")
"""Fields of a document that hold its question, the likeliest first; in none of them, the prompt is the question."""

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Settings that say where outputs are cut, in the order in which lm-evaluation-harness heeds them."""


def read_lm_eval(source: str, tables: Mapping[str, Table]) -> Outputs:
    """Opens samples.

    Args:
        source: what the user gave, for messages.
        tables: one or more files of samples by path.

    Raises:
        DRPError: they are of more than one run, or lm-evaluation-harness cut the reasoning away.
    """
    tasks = {path: _task(path) for path in tables}
    one_run(source, tasks)
    models, sizes, limits = set(), set(), set()
    for path, table in tables.items():
        results = _results(Path(path))
        config = results.get("config", {})
        models.add(results.get("model_name") or name_of(source))
        sizes.add(config.get("model_num_parameters"))
        _refuse_without_reasoning(path, config.get("model_args"))
        limits.add(_request(f"{table.name} row 1", table.first())[1])
    if len(models) > 1:
        raise DRPError(f"{source} holds the models {', '.join(sorted(models))}: give the outputs of one of them.")

    def read() -> Iterator[Output]:
        for path, table in tables.items():
            yield from _outputs(table, tasks[path])

    (model,) = models
    limit, size = (values.pop() if len(values) == 1 else None for values in (limits, sizes))
    return Outputs(model, read, limit, size)


def _task(path: str) -> str | None:
    """The task in the name `samples_<task>_<date>`, None in a file of another name."""
    prefix, *middle = Path(path).stem.split("_")
    return "_".join(middle[:-1]) if prefix == "samples" and len(middle) > 1 else None


def _results(samples: Path) -> dict[str, Any]:
    """The results of the same run (`<name>_<date>.json`), empty where they are not there."""
    date = samples.stem.rpartition("_")[2]
    for path in sorted(samples.parent.glob(f"*_{date}.json")):
        try:
            return json.loads(path.read_bytes())
        except ValueError as error:
            raise DRPError(f"{path} is not JSON ({error}): mend it or take it away.") from error
    return {}


def _refuse_without_reasoning(path: str, model_args: Any) -> None:
    if "think_end_token" in (model_args or ""):
        raise DRPError(
            f"{path} is without its reasoning, which lm-evaluation-harness cut away, so that its tokens cannot be "
            "counted: run it again without think_end_token in model_args."
        )


def _outputs(table: Table, task: str | None) -> Iterator[Output]:
    kept = None
    for number, row in table.rows(None):
        where = f"{table.name} row {number}"
        kept = kept or (row.get("filter"),)
        if (row.get("filter"),) != kept:
            continue
        question, limit = _request(where, row)
        golds = bare_golds(_targets(row.get("target")), where, "target")
        for index, text in enumerate(_responses(where, row)):
            yield Output(where, question, golds, whole(text), benchmark=task, sample=index, limit=limit)


def _request(where: str, row: Mapping[str, Any]) -> tuple[str, int | None]:
    """The question, and the tokens after which outputs were cut."""
    doc = need(row, "doc", dict, where)
    arguments = need(row, "arguments", (dict, list), where)
    try:
        if isinstance(arguments, dict):
            arguments = [list(arguments["gen_args_0"].values())]
        prompt, settings = arguments[0]
        limit = next((settings[name] for name in LIMITS if settings.get(name)), None)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DRPError(
            f"{where} is not of a task that generates text (its arguments are {str(arguments)!r:.60}): give samples "
            "of a task with output_type generate_until."
        ) from error
    named = {name.lower(): value for name, value in doc.items()}
    candidates = (named.get(name) for name in QUESTIONS)
    question = next((text for text in candidates if isinstance(text, str) and text.strip()), prompt)
    return whole(str(question).strip()), limit


def _targets(target: Any) -> Any:
    """Several targets are written as Python writes a list of texts; "[0, 1]" is one, an interval."""
    if isinstance(target, str) and target.startswith(("['", '["')):
        try:
            targets = ast.literal_eval(target)
        except (SyntaxError, ValueError):
            return target
        return targets if isinstance(targets, list) and all(isinstance(one, str) for one in targets) else target
    return target


def _responses(where: str, row: Mapping[str, Any]) -> list[str]:
    requests = need(row, "resps", list, where)
    responses = [text for request in requests for text in (request if isinstance(request, list) else [request])]
    if not responses or not all(isinstance(text, str) for text in responses):
        raise DRPError(
            f"{where}: the field 'resps' holds {row['resps']!r:.60}, it must be texts: give samples of a task with "
            "output_type generate_until."
        )
    return responses
