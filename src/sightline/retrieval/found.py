"""What was found for one sample, and how it is written: our way, and as MMed-RAG's scripts write it.

MMed-RAG's retrieval writes JSON lines: for reports `id, report, reference_reports, retrieve_k, image`; for questions
the line that was read, with `reference_reports` and `retrieve_k` added (github.com/richard-peng-xia/MMed-RAG).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..types import Sample
from .report import Report

MARK = "<image>"
REPORT = "report"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Reports found for a sample, the most similar first.

    Args:
        sample: who asked.
        index: the index that was asked; "" where there was no image to ask with.
        reports: what was found, shown or not.
        similarities: of each.
        behind: how many reports say the same as each, itself included.
        kept: how many are shown.
    """

    sample: Sample
    index: str = ""
    reports: tuple[Report, ...] = ()
    similarities: tuple[float, ...] = ()
    behind: tuple[int, ...] = ()
    kept: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """The reports that are shown."""
        return tuple(r.text for r in self.reports[: self.kept])

    def told(self) -> Sample:
        """The sample with the reports that are shown as its references."""
        return replace(self.sample, references=self.texts)

    def line(self, split: str, rule: str) -> dict[str, Any]:
        """What was found, without the texts of reports."""
        each = zip(self.reports, self.similarities, self.behind, strict=True)
        return {
            "id": self.sample.id,
            "patient": self.sample.patient,
            "split": split,
            "index": self.index,
            "rule": rule,
            "kept": self.kept,
            "reports": [
                {"id": r.id, "patient": r.patient, "similarity": round(s, 6), "behind": b} for r, s, b in each
            ],
        }

    def original(self) -> list[tuple[str, dict[str, Any]]]:
        """MMed-RAG's lines, each with `report` or `vqa`: whose script it is for."""
        image = self.sample.images[0].path if self.sample.images else ""
        told = {"reference_reports": list(self.texts), "retrieve_k": self.kept}
        lines: list[tuple[str, dict[str, Any]]] = []
        question = ""
        for place, message in enumerate(self.sample.messages):
            if message.role == "user":
                question = message.text.strip()
            elif message.role == "assistant" and message.topic == REPORT:
                lines.append(
                    ("report", {"id": self.sample.id, "report": message.text, **told, "image": image})
                )
            elif message.role == "assistant":
                name = f"{self.sample.id}-{place}" if _turns(self.sample) > 1 else self.sample.id
                asked = {"question_id": name, "question": f"{question}\n{MARK}", "answer": message.text}
                lines.append(("vqa", {**asked, "image": image, **told}))
        return lines


@dataclass(frozen=True, kw_only=True)
class Similar:
    """A report that was found.

    Args:
        id: of the sample that it comes from.
        similarity: cosine of its embedding and the image's.
        text: the report.
        behind: how many reports say the same, itself included.
        shown: whether it stands in the prompt.
    """

    id: str
    similarity: float
    text: str
    behind: int
    shown: bool


def listed(found: Found) -> tuple[Similar, ...]:
    """What was found, the most similar first, shown or not."""
    each = zip(found.reports, found.similarities, found.behind, strict=True)
    return tuple(
        Similar(id=r.id, similarity=s, text=r.text, behind=b, shown=i < found.kept)
        for i, (r, s, b) in enumerate(each)
    )


def _turns(sample: Sample) -> int:
    return sum(m.role == "assistant" for m in sample.messages)


def write(folder: Path, found: Mapping[str, Sequence[Found]], rule: str) -> None:
    """Write what was found for the samples of each split: `retrieved.jsonl`, and MMed-RAG's files in `original`."""
    _lines(folder / "retrieved.jsonl", (f.line(split, rule) for split, each in found.items() for f in each))
    (folder / "original").mkdir(exist_ok=True)
    for split, each in found.items():
        made = [pair for f in each for pair in f.original()]
        for kind in sorted({kind for kind, _ in made}):
            _lines(folder / "original" / f"{split}-{kind}.jsonl", (line for k, line in made if k == kind))


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def mean_kept(found: Sequence[Found]) -> float:
    """How many reports are shown on average."""
    return sum(f.kept for f in found) / max(1, len(found))
