"""`drp push metric --repo-id OWNER/token_efficiency`: publishes the metric as a Space, for `evaluate.load`."""

from __future__ import annotations

from dataclasses import dataclass

from drp_hf.commands.parsing import parse_and_run
from drp_hf.commands.push import tell
from drp_hf.hub.metric import metric_publication
from drp_hf.hub.publication import Published, PushOptions, publish


@dataclass
class PushMetricArguments(PushOptions):
    """How the metric gets to the Hub; it has no settings of its own. See [`PushOptions`]."""


def main(arguments: PushMetricArguments) -> Published:
    """Publishes the metric, and prints where it is.

    Raises:
        DRPError: see [`metric_publication`] and [`publish`].
    """
    return tell(publish(metric_publication(arguments.repo_id), arguments))


def cli() -> None:
    """Entry point of `drp push metric`."""
    parse_and_run(main, PushMetricArguments)
