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
"""Publishes on the Hub: `python recipes/push.py corpus corpora/gsm8k --repo-id you/gsm8k_pruned`."""

from drp_hf.commands.push import cli

if __name__ == "__main__":
    cli()
