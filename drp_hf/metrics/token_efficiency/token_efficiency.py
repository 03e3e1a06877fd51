"""Accuracy against tokens, in the layout of the library `evaluate`: a thin shell over scoring and figures."""

import gc

import datasets
import evaluate
from tqdm import tqdm

from drp_hf.errors import DRPError
from drp_hf.figures import ScoreTable, figures
from drp_hf.grading import Grader
from drp_hf.records import render_output
from drp_hf.scoring import Sample, score_samples

_DESCRIPTION = """
Token efficiency of reasoning models: how often the final answer is right, how many tokens were written for it and what
they were spent on, and against a baseline on the same questions how many tokens were saved and what that did to
accuracy, with paired bootstrap intervals, an exact test, and the composite figures of the literature.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list`): for each question one output or a list of samples. An output is a text with its think tags,
        or a dictionary with `output`, or with `reasoning` and `response`, and as far as known `n_tokens` (tokens as
        generated) and `finished` (whether it ended by itself; False means that it was cut at a limit). Counts in the
        predictions also work with `add`, `add_batch` and several processes.
    references (`list[str]`): gold answers, bare.
    n_tokens (`list`, *optional*): tokens of each output, in the shape of the predictions, for those without a count.
    finished (`list`, *optional*): the same for whether each output ended by itself. An output that was cut counts with
        all its tokens, and is right only if it closed its think tag and expressly stated the right answer after it.
    tokenizer (`str`, *optional*): name of a tokenizer. It counts the outputs that have no count, and finds the places
        of tokens, which else lie in proportion to characters.
    baseline_predictions, baseline_n_tokens, baseline_finished (*optional*): the same of a baseline on these questions.
    n_parameters (`int`, *optional*): parameters of the model, for ACU.
    limit (`int`, *optional*): tokens at which outputs were cut. Where `finished` is not known, outputs of at least so
        many tokens count as cut; accuracy is followed over the budget up to here (the longest output if not given).
    budgets (`list[int]`, *optional*): tokens at which HCA, SCA and CCA are given.
    aes, acu, sca, cca, e3, budget_keeping, bootstrap (`dict`, *optional*): constants that differ from the usual ones,
        such as `aes={"beta": 1.0}` or `bootstrap={"n_resamples": 2000, "confidence": 0.9, "seed": 1}`.

Returns:
    `dict` of plain numbers, None where a figure is not defined; the card says what each one means. `…_interval` is a
    list of two. `constants` holds what the composites and intervals were made with.

Examples:

    >>> import evaluate
    >>> metric = evaluate.load("drp_hf/token_efficiency")
    >>> results = metric.compute(
    ...     predictions=["<think>3 + 4 = 7</think>The answer is 7.", "<think>2 * 5 = 11</think>The answer is 11."],
    ...     references=["7", "10"],
    ...     n_tokens=[12, 14],
    ... )
    >>> results["accuracy"], results["mean_tokens"], results["share_truncated"]
    (0.5, 13.0, None)

    Against a baseline, whose second output was cut off:

    >>> results = metric.compute(
    ...     predictions=["<think>3 + 4 = 7</think>The answer is 7.", "<think>2 * 5 = 10</think>The answer is 10."],
    ...     references=["7", "10"],
    ...     n_tokens=[12, 18],
    ...     finished=[True, True],
    ...     baseline_predictions=["<think>3 + 4 = 7. Wait, yes.</think>The answer is 7.", "<think>2 * 5 = 10. Hmm"],
    ...     baseline_n_tokens=[20, 80],
    ...     baseline_finished=[True, False],
    ... )
    >>> results["token_reduction"], results["delta_accuracy"], results["aes"]
    (0.7, 0.5, 3.7)

    Two samples of one question, with their counts, as they come out of a loop:

    >>> first = {"output": "<think>3 + 4 = 7</think>The answer is 7.", "n_tokens": 12, "finished": True}
    >>> second = {"reasoning": "Hmm, is it 8?", "response": "The answer is 8.", "n_tokens": 16, "finished": True}
    >>> metric.add(prediction=[first, second], reference="7")
    >>> results = metric.compute()
    >>> results["n_questions"], results["n_samples"], results["pass_at_k"]
    (1, 2, {'1': 0.5, '2': 1.0})
"""

_CITATION = """
@article{jiang2025drp,
    title={{DRP}: Distilled Reasoning Pruning with Skill-aware Step Decomposition for Efficient Large Reasoning
        Models},
    author={Jiang, Yuxuan and Li, Dawei and Ferraro, Francis},
    journal={arXiv preprint arXiv:2505.13975},
    year={2025}
}
"""

_PAPERS = "2505.13975 2107.03374 2501.12570 2502.09601 2412.21187 2501.18585 2407.19825 2511.10201".split()


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class TokenEfficiency(evaluate.Metric):
    """See the description above."""

    def _info(self):
        sample = {
            "output": datasets.Value("string"),
            "n_tokens": datasets.Value("int64"),
            "finished": datasets.Value("bool"),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.List(sample), "references": datasets.Value("string")}),
            reference_urls=[f"https://arxiv.org/abs/{paper}" for paper in _PAPERS],
        )

    # The library tells one form of input from another by the first prediction alone. Here every prediction may have a
    # form of its own, so they are all brought into one before the library stores them.

    def add(self, *, prediction=None, reference=None, **kwargs):
        """Adds one question: its prediction and reference."""
        # What `evaluate.combine` makes hands them over under the names that they have in a batch.
        prediction, reference = kwargs.pop("predictions", prediction), kwargs.pop("references", reference)
        super().add(prediction=_samples(prediction, "The prediction"), reference=reference, **kwargs)

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Adds several questions: their predictions and references."""
        super().add_batch(predictions=_all_samples("predictions", predictions), references=references, **kwargs)

    def _compute(
        self,
        predictions,
        references,
        n_tokens=None,
        finished=None,
        tokenizer=None,
        baseline_predictions=None,
        baseline_n_tokens=None,
        baseline_finished=None,
        n_parameters=None,
        limit=None,
        budgets=(),
        **constants,
    ):
        if tokenizer is not None:
            from drp_hf.models import load_tokenizer

            tokenizer = load_tokenizer(tokenizer)
        grader = Grader()
        table = _table("", predictions, references, n_tokens, finished, tokenizer, limit, grader)
        baseline = None
        if baseline_predictions is not None:
            outputs = _all_samples("baseline_predictions", baseline_predictions)
            baseline = _table(
                "baseline_", outputs, references, baseline_n_tokens, baseline_finished, tokenizer, limit, grader
            )
        return figures(table, baseline, budgets=budgets, n_parameters=n_parameters, limit=limit, **constants)


# ------------------------------------------------------------------------------------------------- forms of a sample

_KEYS = ({"output"}, {"reasoning", "response"})


def _all_samples(name, predictions):
    return [_samples(prediction, f"{name}[{i}]") for i, prediction in enumerate(predictions)]


def _samples(prediction, where):
    """The samples of a question, each as a dictionary with `output`, `n_tokens` and `finished`."""
    if not isinstance(prediction, (list, tuple)):
        return [_sample(prediction, where)]
    if not prediction:
        raise DRPError(f"{where} is empty: give at least one sample of each question.")
    return [_sample(sample, f"{where}[{i}]") for i, sample in enumerate(prediction)]


def _sample(sample, where):
    if isinstance(sample, str):
        sample = {"output": sample}
    if not isinstance(sample, dict) or sample.keys() - {"n_tokens", "finished"} not in _KEYS:
        raise DRPError(
            f"{where} is {sample!r:.80}: give a text, or a dictionary with output (or reasoning and response), and "
            "n_tokens and finished as far as they are known."
        )
    if missing := [name for name in _KEYS[0] | _KEYS[1] if not isinstance(sample.get(name, ""), str)]:
        raise DRPError(f"{where} has {missing[0]} {sample[missing[0]]!r:.80}: give a text.")
    output = sample["output"] if "output" in sample else render_output(sample["reasoning"], sample["response"])
    # Half a surrogate pair can be in a text of a model, but in no Arrow file.
    output = output.encode(errors="replace").decode()
    return {"output": output, "n_tokens": sample.get("n_tokens"), "finished": sample.get("finished")}


# ------------------------------------------------------------------------------------------------------- their scores


def _table(prefix, predictions, references, n_tokens, finished, tokenizer, limit, grader):
    """Scores every sample."""
    if len(predictions) != len(references):
        raise DRPError(
            f"{prefix}predictions has {len(predictions)} entries for {len(references)} references: give one for each."
        )
    columns = {"n_tokens": n_tokens, "finished": finished}
    for name, values in columns.items():
        columns[name] = _in_shape(f"{prefix}{name}", values, predictions)
    flat = [(index, sample) for index, samples in enumerate(predictions) for sample in samples]
    given = zip(flat, columns["n_tokens"], columns["finished"], strict=True)

    def samples():
        for (index, sample), count, whole in given:
            count = count if sample["n_tokens"] is None else sample["n_tokens"]
            if count is None:
                count = _count(prefix, index, sample["output"], tokenizer)
            if count < 0:
                raise DRPError(f"{prefix}predictions[{index}] has {count} tokens: give 0 or more.")
            whole = whole if sample["finished"] is None else sample["finished"]
            if whole is None and limit is not None:
                whole = count < limit
            yield Sample(sample["output"], references[index], count, whole)

    scores = score_samples(samples(), grader, tokenizer)
    progress = tqdm(scores, desc=f"Scoring {prefix}predictions", total=len(flat), delay=5, leave=False)
    # Nothing here leaves cycles behind, and looking for them in all that is imported takes a fifth of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return ScoreTable.of((index for index, _ in flat), progress)
    finally:
        if collecting:
            gc.enable()


def _in_shape(name, values, predictions):
    """One value a sample, of a list that has one value or a list of them for each question."""
    if isinstance(values, (bool, int, float, str)):
        raise DRPError(f"{name} is {values!r}: give a list with a value for each question.")
    if values is None:
        return [None] * sum(map(len, predictions))
    nested = [value if isinstance(value, (list, tuple)) else [value] for value in values]
    if len(nested) != len(predictions):
        raise DRPError(f"{name} has {len(nested)} entries for {len(predictions)} questions: give one for each.")
    for index, (given, samples) in enumerate(zip(nested, predictions, strict=True)):
        if len(given) != len(samples):
            raise DRPError(f"{name}[{index}] has {len(given)} entries for {len(samples)} samples: give one for each.")
    return [value for given in nested for value in given]


def _count(prefix, index, output, tokenizer):
    if tokenizer is None:
        raise DRPError(
            f"{prefix}predictions[{index}] has no count: give {prefix}n_tokens as they were generated, or the name of "
            "a tokenizer that counts them."
        )
    return len(tokenizer(output, add_special_tokens=False)["input_ids"])
