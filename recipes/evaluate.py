"""Measures a model: `python recipes/evaluate.py --config recipes/quickstart/evaluate.yaml …`."""

from drp_hf.commands.evaluate import cli

if __name__ == "__main__":
    cli()
