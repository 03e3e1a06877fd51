"""`drp push corpus DIR --repo-id OWNER/NAME`: a corpus folder becomes a data set of the Hub."""

from __future__ import annotations

from dataclasses import dataclass, field

from drp_hf.commands.parsing import parse_and_run
from drp_hf.commands.push import tell
from drp_hf.hub.corpus import CorpusOptions, push_corpus
from drp_hf.hub.publication import Published


@dataclass(kw_only=True)
class PushCorpusArguments(CorpusOptions):
    """
    Configuration of `drp push corpus`; what is not here is that of `CorpusOptions` and `PushOptions`.

    > Parameters that control what is published

    Args:
        corpus (`str`):
            Folder of the corpus, as `drp prune` wrote it.
    """

    corpus: str = field(metadata={"help": "Folder of the corpus, as drp prune wrote it."})


def main(arguments: PushCorpusArguments) -> Published:
    """Publishes the corpus, and prints where it is.

    Raises:
        DRPError: the folder is no corpus, a setting cannot be used, or the Hub did not take it.
    """
    return tell(push_corpus(arguments.corpus, arguments))


def cli() -> None:
    """Entry point of `drp push corpus`."""
    parse_and_run(main, PushCorpusArguments, "corpus")
