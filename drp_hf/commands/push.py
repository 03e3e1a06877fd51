"""`drp push corpus|student|metric …`: launches the publishing of one kind of thing, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drp_hf.commands.launching import launch

if TYPE_CHECKING:
    from drp_hf.hub.publication import Published

KINDS = {
    "corpus": "a pruned corpus, as a data set",
    "student": "a trained model",
    "metric": "the token_efficiency metric, as a Space",
}


def cli() -> None:
    """Entry point of `drp push`."""
    launch("drp push", "kind", KINDS, "drp_hf.commands.push_{}")


def tell(published: Published) -> Published:
    """Prints where a publication is; nothing after a dry run, which has shown it.

    Returns:
        The same.
    """
    from rich.console import Console

    if published.commit is not None:
        Console(soft_wrap=True).print(f"{'published' if published.changed else 'unchanged'}: {published.url}")
    return published
