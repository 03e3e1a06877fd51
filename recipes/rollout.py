"""Lets a model write traces: `python recipes/rollout.py --config recipes/quickstart/rollout.yaml …`."""

from drp_hf.commands.rollout import cli

if __name__ == "__main__":
    cli()
