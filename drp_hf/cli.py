"""`drp <stage> …`: launches a command, and nothing else."""

from drp_hf.commands.launching import launch

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
    launch("drp", "stage", STAGES, "drp_hf.commands.{}")


if __name__ == "__main__":
    main()
