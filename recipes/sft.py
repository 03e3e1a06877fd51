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
"""Fine-tunes a student on a corpus: `accelerate launch recipes/sft.py --config recipes/quickstart/sft.yaml`."""

from drp_hf.commands.sft import cli

if __name__ == "__main__":
    cli()
