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
"""Preference training: `accelerate launch recipes/dpo.py --config recipes/quickstart/dpo.yaml`."""

from drp_hf.commands.dpo import cli

if __name__ == "__main__":
    cli()
