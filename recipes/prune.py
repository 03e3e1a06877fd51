"""Prunes traces into a corpus: `python recipes/prune.py traces.jsonl --output_dir corpus`."""

from drp_hf.commands.prune import cli

if __name__ == "__main__":
    cli()
