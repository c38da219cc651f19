"""Pairs in the JSON of MMed-RAG's preference files, for its own training script and for whatever else reads them.

One list of records `{id, image, conversations, rejected_conversations, rejected_noised}`, as in the folder
`data/training/alignment` of github.com/richard-peng-xia/MMed-RAG; a pair of several images has a list as `image`. The
format knows one degraded image only, pure noise: whatever spoils the rejected side is written as `rejected_noised: 1`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..types import Preference

MARK = "<image>"
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


def write(path: Path, pairs: Iterable[Preference]) -> int:
    """Write pairs; equal pairs give equal bytes.

    Returns:
        How many were written.

    Raises:
        DataError: a pair shows what the format cannot say.
    """
    rows = [record(pair) for pair in pairs]
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return len(rows)


def record(pair: Preference) -> dict[str, Any]:
    """One pair as a record.

    Raises:
        DataError: a side shows other images, or the chosen side a degraded one.
    """
    if pair.chosen_images is not None or isinstance(pair.rejected_images, tuple):
        raise DataError(
            "MMed-RAG's format has no place for what this pair shows",
            where=f"record {pair.id}, fields chosen_images and rejected_images",
            expected="the images themselves, the rejected ones degraded at most",
        )
    asked = [{"from": SPEAKERS[m.role], "value": written(m.parts)} for m in pair.prompt]
    paths = [ref.path for ref in pair.images]
    return {
        "id": pair.id,
        "image": paths[0] if len(paths) == 1 else paths,
        "conversations": [*asked, {"from": "gpt", "value": pair.chosen}],
        "rejected_conversations": [*asked, {"from": "gpt", "value": pair.rejected}],
        "rejected_noised": int(pair.rejected_images is not None),
    }


def written(parts: Sequence[str | int]) -> str:
    """A message's parts as one text; each image's mark stands on a line of its own, as in LLaVA's files."""
    lines: list[str] = []
    for part in parts:
        if isinstance(part, str) and lines and lines[-1] != MARK:
            lines[-1] += part
        else:
            lines.append(MARK if isinstance(part, int) else part)
    return "\n".join(lines)
