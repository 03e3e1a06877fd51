"""Measures outputs that other programs wrote: `python recipes/score.py samples_gsm8k_….jsonl --output_dir …`."""

from drp_hf.commands.score import cli

if __name__ == "__main__":
    cli()
