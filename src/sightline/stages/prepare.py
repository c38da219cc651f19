"""prepare: raw files in any supported layout -> checked, patient-split Parquet and an audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.merge import merge, told
from ..data.prepare import prepare
from ..data.printed import FOLDER as PRINTS
from ..data.priors import attach_all
from ..data.twins import FILE as NEAR
from ..data.twins import twins
from ..recipe import Prepare
from ..runs import Run, write_json

VERSION = 2


def run(run: Run, section: Prepare, seed: int) -> None:
    """Read, check, split, write; see `sightline.data.prepare`, and `sightline.data.merge` for several sources."""
    shares = {"train": section.split.train, "valid": section.split.valid, "test": section.split.test}
    common: dict[str, Any] = {
        "out": run.work,
        "seed": seed,
        "shares": {name: share for name, share in shares.items() if share > 0},
        "by": section.split.by,
        "strict": section.strict,
        "max_bad": section.max_bad,
        "max_pixels": section.max_pixels,
    }
    if section.sources:
        made = merge(section.sources, **common)
    else:
        root = None if section.root is None else Path(section.root)
        made = prepare(section.reader, section.options, root=root, **common)
    run.event("prepared", counts=dict(made.counts), rejected=made.rejected)
    counts = ", ".join(f"{name} {count}" for name, count in made.counts.items())
    print(f"  {counts}; {made.rejected} record(s) set aside")
    for line in told(made):
        print(f"  {line}")
    if section.prior_study:
        for split, found in attach_all(made).items():
            print(f"  priors of {split}: " + ", ".join(f"{name} {count}" for name, count in found.items()))
    for audit in made.audits:
        print("  " + audit.text().replace("\n", "\n  "))
    if section.near:
        records = {split: made.records(split) for split in made.counts}
        alike = twins(records, made.root, section.near, run.folder.parent / PRINTS)
        write_json(run.work / NEAR, alike.to_dict())
        print("  " + alike.text().replace("\n", "\n  "))
