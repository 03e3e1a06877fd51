"""Recognises what a file, a folder or a data set holds, by its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from drp_hf.errors import DRPError
from drp_hf.outputs.lighteval import DETAILS, OLDER_DETAILS, read_lighteval
from drp_hf.outputs.lm_eval import SAMPLES, read_lm_eval
from drp_hf.outputs.output import Outputs
from drp_hf.outputs.plain import read_plain
from drp_hf.tables import Table, open_file, open_tables


def read_outputs(source: str) -> Outputs:
    """Opens outputs that another program wrote; rows are read and checked one by one.

    Args:
        source: one of

            - samples of lm-evaluation-harness (`samples_<task>_<date>.jsonl`), or its output folder;
            - details of lighteval (`details_<task>_<date>.parquet`), or its output folder;
            - JSON Lines or Parquet with the columns of [`~drp_hf.outputs.plain.read_plain`];
            - a data set folder, or a data set on the Hub, with the columns of any of these.

    Raises:
        DRPError: it cannot be opened, or is none of these.
    """
    tables = _tables(source)
    formats = {_format(table) for table in tables.values()}
    if len(formats) > 1:
        raise DRPError(f"{source} holds outputs of several kinds ({' and '.join(sorted(formats))}): give one of them.")
    (form,) = formats
    read = {"lm-eval": read_lm_eval, "lighteval": read_lighteval, "plain rows": read_plain}[form]
    return replace(read(source, tables), commit=next(iter(tables.values())).commit)


def _tables(source: str) -> Mapping[str, Table]:
    path = Path(source)
    patterns = ("samples_*.jsonl", "details_*.parquet")
    files = [path] if path.is_file() else [file for pattern in patterns for file in sorted(path.rglob(pattern))]
    return {str(file): open_file(file) for file in files} if files else open_tables(source)


def _format(table: Table) -> str:
    columns = set(table.columns)
    if columns >= SAMPLES:
        return "lm-eval"
    return "lighteval" if columns >= DETAILS or columns >= OLDER_DETAILS else "plain rows"
