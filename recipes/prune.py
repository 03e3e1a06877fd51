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
"""Prunes traces into a corpus: `python recipes/prune.py traces.jsonl --output_dir corpus`."""

from drp_hf.commands.prune import cli

if __name__ == "__main__":
    cli()
