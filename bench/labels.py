"""How well the rule labeller finds the 14 findings in 3955 real reports, against the MeSH terms of human coders.

    python bench/labels.py

The reports are read from the package torchxrayvision (Indiana collection, Demner-Fushman et al. 2016). Those that were
never indexed are left out. The rules were written on one half of the reports, by the parity of the SHA-256 of their
ids; the other half was scored once, when the rules were finished. `affirmed` counts a finding in doubt as absent, which
is nearer to what the coders did; `doubt too` counts it as present. A coder's term is no perfect truth: coders saw the
same texts, took "may represent pneumonia" for nothing and "atelectasis versus infiltrate" for both.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.metrics import labels
from sightline.metrics.labels.reading import read
from sightline.metrics.labels.rules import FINDINGS

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
COUNTINGS = {"affirmed": (1,), "doubt too": (1, -1)}
HALVES = ("held out", "written", "all")


def collection() -> Any:
    """`tests/openi.py`, which reads the reports and says which terms stand for which finding."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))
    return importlib.import_module("openi")


def measure() -> dict[str, Any]:
    """Counts and F1 of each finding: {half: {counting: {finding: {...}}}}, and macro F1."""
    openi = collection()
    reals = [real for real in openi.reports() if openi.UNREAD not in real.mesh]
    said = {real.id: read(real.text).labels() for real in reals}
    out: dict[str, Any] = {}
    for name in HALVES:
        chosen = [
            (openi.truth(real.mesh), said[real.id]) for real in reals if name in ("all", openi.half(real))
        ]
        out[name] = {"reports": len(chosen)}
        for counting, there in COUNTINGS.items():
            rows = {finding: count(chosen, finding, there) for finding in FINDINGS}
            macro = sum(row["f1"] for row in rows.values()) / len(rows)
            out[name][counting] = {"macro_f1": macro, "findings": rows}
    return out


def count(
    chosen: Sequence[tuple[dict[str, bool], dict[str, int | None]]], finding: str, there: Sequence[int]
) -> dict[str, float]:
    """Hits, misses, false alarms and F1 of one finding."""
    pairs = [(truth[finding], said[finding] in there) for truth, said in chosen]
    hits, missed = sum(t and s for t, s in pairs), sum(t and not s for t, s in pairs)
    extra = sum(s and not t for t, s in pairs)
    return {"hits": hits, "missed": missed, "extra": extra, "f1": 2 * hits / (2 * hits + missed + extra)}


def rules() -> str:
    """SHA-256 of the labeller's files."""
    digest = hashlib.sha256()
    for path in sorted(Path(str(labels.__file__)).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def table(found: dict[str, Any]) -> str:
    """The figures as the rows of a Markdown table, as docs/metrics/findings.md has them."""
    lines = []
    for finding in FINDINGS:
        held, written = (found[name]["affirmed"]["findings"][finding] for name in HALVES[:2])
        doubt = found["held out"]["doubt too"]["findings"][finding]["f1"]
        lines.append(
            f"| {finding} | {held['hits'] + held['missed']} | {held['f1']:.3f} | {doubt:.3f} | {written['f1']:.3f} |"
        )
    macro = [found["held out"]["affirmed"], found["held out"]["doubt too"], found["written"]["affirmed"]]
    lines.append("| **macro** | | " + " | ".join(f"**{each['macro_f1']:.3f}**" for each in macro) + " |")
    return "\n".join(lines)


def main() -> None:
    found = measure()
    print("reports: " + ", ".join(f"{name} {found[name]['reports']}" for name in HALVES) + "\n")
    print("| finding | coded in held-out half | F1 held out | F1 held out, doubt too | F1 written on |")
    print("|---|---|---|---|---|")
    print(table(found))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "labels-openi.json"
    path.write_text(json.dumps({"rules": rules(), **found}, indent=1) + "\n", encoding="utf-8")
    print(f"\n{path}")


if __name__ == "__main__":
    main()
