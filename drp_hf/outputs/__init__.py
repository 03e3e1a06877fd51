"""Outputs that other programs wrote, read one by one: lm-evaluation-harness, lighteval, plain rows."""

from drp_hf.outputs.output import Output, Outputs, bare_golds, name_of
from drp_hf.outputs.reading import read_outputs

__all__ = ["Output", "Outputs", "bare_golds", "name_of", "read_outputs"]
