"""Writes GSM8K's questions with their final answers: `python recipes/gsm8k_problems.py gsm8k`.

Makes gsm8k/train.jsonl and gsm8k/test.jsonl, which the recipes of this folder read. A data set's name or folder may
follow, if not `openai/gsm8k`.
"""

import sys
from pathlib import Path

from datasets import load_dataset


def final_answer(row):
    """What stands behind the solution's last `####`, without thousands separators."""
    return {"answer": row["answer"].rpartition("####")[2].strip().replace(",", "")}


def main(output_dir, source="openai/gsm8k"):
    """Writes both splits into `output_dir`."""
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        rows = load_dataset(source, "main", split=split).map(final_answer)
        rows.to_json(Path(output_dir) / f"{split}.jsonl", force_ascii=False)
        print(f"{len(rows)} problems in {output_dir}/{split}.jsonl")


if __name__ == "__main__":
    main(*sys.argv[1:])
