"""Preference training: `accelerate launch recipes/dpo.py --config recipes/quickstart/dpo.yaml`."""

from drp_hf.commands.dpo import cli

if __name__ == "__main__":
    cli()
