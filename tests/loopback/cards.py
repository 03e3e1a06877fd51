"""The metadata of a card."""

from __future__ import annotations

import re
from typing import Any

import yaml


def card_data(text: str) -> dict[str, Any]:
    """The YAML at the head of a card, empty where there is none."""
    match = re.match(r"---\r?\n(.*?\n)?---\r?(\n|$)", text, re.DOTALL)
    return (yaml.safe_load(match[1] or "") or {}) if match else {}
