"""Distilled Reasoning Pruning for Hugging Face.

Importing the package registers its corpora with `datasets` (`load_dataset("drp_hf/gsm8k_pruned", data_dir=…)`); what
needs torch is imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_LAZY = {
    "AnswersCallback": "drp_hf.answers_callback",
    "DRPConfig": "drp_hf.drp_config",
    "DRPTrainer": "drp_hf.drp_trainer",
    "SlicingTeacher": "drp_hf.teachers.slicing",
    "prune_trace": "drp_hf.pruning",
}

__all__ = [
    "Action",
    "AnswersCallback",
    "CorpusRow",
    "DRPConfig",
    "DRPTrainer",
    "Problem",
    "PrunedCorpus",
    "SlicingTeacher",
    "Step",
    "Trace",
    "prune_trace",
]

from drp_hf.corpus.builder import PrunedCorpus, register  # noqa: E402
from drp_hf.records import Action, CorpusRow, Problem, Step, Trace  # noqa: E402

register()

if TYPE_CHECKING:
    from drp_hf.answers_callback import AnswersCallback
    from drp_hf.drp_config import DRPConfig
    from drp_hf.drp_trainer import DRPTrainer
    from drp_hf.pruning import prune_trace
    from drp_hf.teachers.slicing import SlicingTeacher


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
