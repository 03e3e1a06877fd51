"""Fine-tunes a student on a corpus: `accelerate launch recipes/sft.py --config recipes/quickstart/sft.yaml`."""

from drp_hf.commands.sft import cli

if __name__ == "__main__":
    cli()
