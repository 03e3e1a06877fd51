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
"""Measures a model: `python recipes/evaluate.py --config recipes/quickstart/evaluate.yaml …`."""

from drp_hf.commands.evaluate import cli

if __name__ == "__main__":
    cli()
