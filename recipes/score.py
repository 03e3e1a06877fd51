# /// script
# requires-python = ">=3.11"
# dependencies = ["drp_hf"]
#
# [tool.uv.sources]
# drp_hf = { path = "..", editable = true }
#
# [tool.hf-jobs]
# env = { UV_NO_SOURCES = "1" }
# ///
"""Measures outputs that other programs wrote: `python recipes/score.py samples_gsm8k_….jsonl --output_dir …`."""

from drp_hf.commands.score import cli

if __name__ == "__main__":
    cli()
