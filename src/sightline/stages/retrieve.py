"""retrieve: reports of other patients for every sample, as many as the rule keeps; the samples with them as data."""

from __future__ import annotations

import os

from ..data import prepare
from ..data.audit import against
from ..data.store import write_samples
from ..models.encoder_checkpoint import load_encoder
from ..recipe import Retrieve
from ..retrieval import ask, found
from ..retrieval.opened import Index, traces
from ..runs import Run, write_json

VERSION = 2
RULE = "calibrated"


def run(run: Run, section: Retrieve, seed: int) -> None:
    """Search for every split, choose how many are shown, write the data set and what was found."""
    data = prepare.load(run.parents[section.data])
    named = {"": section.index} if isinstance(section.index, str) else section.index
    indexes = {name: Index.open(run.parents[stage]) for name, stage in named.items()}
    library = ask.Library(indexes, load_encoder, run.folder.parent / ".features", seed)
    made = {
        split: library.find(list(data.samples(split)), data.root, section.choose.k) for split in data.counts
    }
    calibration = None
    if section.choose.rule == RULE:
        calibration = ask.calibrated(made.get("valid", []), indexes, section.choose)
        write_json(run.work / "calibration.json", calibration.to_dict())
        run.event("calibrated", k=calibration.k, promised=calibration.promised)
        print("  " + calibration.text().replace("\n", "\n  "))
    if library.router is not None:
        library.router.save(run.work, {"held_out_accuracy": library.routed})
    made = {split: ask.cut(each, section.choose, calibration) for split, each in made.items()}
    found.write(run.work, made, section.choose.rule)
    counts = {
        split: write_samples(run.work / f"{split}.parquet", (f.told() for f in each))
        for split, each in made.items()
    }
    generated = data.root.is_relative_to(data.folder)
    about = {
        "kind": "samples", "root": os.path.relpath(data.root, run.folder) if generated else str(data.root),
        "generated": generated, "rejected": 0, "counts": counts, "template": section.prompt.model_dump(mode="json"),
    }  # fmt: skip
    write_json(run.work / "dataset.json", about)
    leak = against(*traces(indexes.values(), [f.sample for f in made.get("test", [])]))
    write_json(run.work / "audit.json", {"index and test": leak})
    for split, each in made.items():
        none, shown = sum(not f.reports for f in each), found.mean_kept(each)
        run.event("retrieved", split=split, samples=len(each), none=none, shown=round(shown, 3))
        print(
            f"  {split}: {shown:.2f} reports shown on average; none found for {none} of {len(each)} samples"
        )
    if leak["leaks"]:
        print(f"  warning: {leak['warning']}")
