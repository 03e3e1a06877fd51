"""Prunes the hand-written traces beside it into the corpus that comes with the package (configuration `sample`).

Run from the repository's root: `python recipes/quickstart/make_sample.py`.
"""

from pathlib import Path

from drp_hf.commands.prune import STORE, PruneConfig, main

if __name__ == "__main__":
    folder = main(PruneConfig(traces="recipes/quickstart/sample_traces.jsonl", output_dir="drp_hf/corpus/sample"))
    for name in (STORE, "run.json"):  # of use to a run that goes on, not to a reader
        Path(folder, name).unlink()
