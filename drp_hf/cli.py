"""`drp <stage> …`: launches a command, and nothing else."""

import sys
from importlib import import_module

STAGES = {
    "problems": "write word problems from the built-in generator",
    "rollout": "let a model write traces for problems",
    "prune": "prune traces into a corpus",
    "preview": "show what the loss of a training sees, token by token",
    "sft": "fine-tune a student on a corpus",
    "dpo": "teach a student to prefer pruned traces to raw ones",
    "evaluate": "measure tokens and accuracy of a model",
    "score": "measure tokens and accuracy of outputs that other programs wrote",
    "push": "publish a corpus, a student or the metric on the Hugging Face Hub",
    "report": "compare evaluations: table, plots, HTML page",
    "quickstart": "the whole pipeline on the embedded default",
}


def main() -> None:
    """Entry point of the console script."""
    stage = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if stage in ("-h", "--help"):
        print("usage: drp <stage> [options]   (drp <stage> --help shows a stage's options)\n")
        for name, what in STAGES.items():
            print(f"  {name:<12} {what}")
        return
    if stage not in STAGES:
        print(f"error: no stage {stage!r}; choose one of {', '.join(STAGES)}.", file=sys.stderr)
        raise SystemExit(2)
    sys.argv = [f"drp {stage}", *sys.argv[2:]]
    import_module(f"drp_hf.commands.{stage}").cli()


if __name__ == "__main__":
    main()
