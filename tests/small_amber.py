"""A small AMBER: its files written into a folder, and a likeness of words that is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RELATION = {
    "sky": [], "man": ["person"], "woman": ["person", "girl"], "cat": ["kitten"], "puma": ["cub"], "tree": ["forest"],
    "forest": ["tree", "bush"], "TV": ["screen"],
}  # fmt: skip
SAFE = ["light", "bush"]
ALIKE = {("cat", "puma"): 0.9, ("man", "person"): 0.7, ("woman", "person"): 0.6, ("girl", "man"): 0.85}
DESCRIBE = "Describe this image."


def alike(words: Sequence[str]) -> np.ndarray:
    """1 for equal words, what `ALIKE` says for others, else 0."""
    table = np.eye(len(words))
    place = {word: i for i, word in enumerate(words)}
    for (one, other), value in ALIKE.items():
        if one in place and other in place:
            table[place[one], place[other]] = table[place[other], place[one]] = value
    return table


def write(
    folder: Path,
    *rows: dict[str, Any],
    relation: dict[str, list[str]] | None = None,
    safe: Sequence[str] = SAFE,
) -> Path:
    """Annotations `rows` (ids are given in order) and the word lists."""
    folder.mkdir(parents=True, exist_ok=True)
    numbered = [{"id": number, **row} for number, row in enumerate(rows, 1)]
    (folder / "annotations.json").write_text(json.dumps(numbered))
    (folder / "relation.json").write_text(json.dumps(RELATION if relation is None else relation))
    (folder / "safe_words.txt").write_text("\n".join(safe))
    return folder


def described(truth: Sequence[str], hallu: Sequence[str]) -> dict[str, Any]:
    """An annotation of a description."""
    return {"type": "generative", "truth": list(truth), "hallu": list(hallu)}


def asked(kind: str, truth: str) -> dict[str, Any]:
    """An annotation of a yes/no question."""
    return {"type": kind, "truth": truth}


def pictures(folder: Path, *queries: str) -> None:
    """Query files and an image for each query; queries of descriptions stand in a file of their own."""
    (folder / "image").mkdir(exist_ok=True)
    rows = []
    for number, query in enumerate(queries, 1):
        name = f"AMBER_{number}.jpg"
        Image.new("RGB", (32, 32), (40 * number % 256, 90, 120)).save(folder / "image" / name)
        rows.append({"id": number, "image": name, "query": query})
    for name, chosen in (
        ("query_generative", [r for r in rows if r["query"] == DESCRIBE]),
        ("query_discriminative", [r for r in rows if r["query"] != DESCRIBE]),
    ):
        (folder / f"{name}.json").write_text(json.dumps(chosen))
