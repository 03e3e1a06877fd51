"""A pruned corpus on disk: a data set folder with one Parquet file per view and split, and its card."""

VIEWS = {
    "sft": "Accepted traces for supervised fine-tuning: `prompt` and `completion` as chat messages, and the steps as "
    "character spans of the completion.",
    "masked-raw": "Accepted traces as they were written, for training that reads the deleted steps and does not learn "
    "them: as `sft`, with the raw outputs and all steps.",
    "steps": "One row a step of every trace that has steps, accepted or not: its text, skill, action and rewrite.",
    "pairs": "Accepted traces for preference training: the pruned completion is `chosen`, the raw output `rejected`.",
    "raw": "Every row as it was pruned, accepted or not, with the reason.",
}
"""The views (configurations) of a corpus, the default first."""

DEFAULT_VIEW = "sft"


def view_file(view: str, split: str) -> str:
    """Where a view's split lies in a corpus folder."""
    return f"{view}/{split}.parquet"


def shard_file(view: str, split: str, number: int, count: int) -> str:
    """Where a shard of a view's split lies in a repository of the Hub; numbers count from 0."""
    return f"{view}/{split}-{number:05d}-of-{count:05d}.parquet"


def shard_pattern(view: str, split: str) -> str:
    """All shards of a view's split, for the card."""
    return f"{view}/{split}-*.parquet"
