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
"""Lets a model write traces: `python recipes/rollout.py --config recipes/quickstart/rollout.yaml …`."""

from drp_hf.commands.rollout import cli

if __name__ == "__main__":
    cli()
