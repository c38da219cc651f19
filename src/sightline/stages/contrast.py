"""contrast: tune an image-text encoder on images and reports; the best validated step is the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import judging, plugins
from ..data import prepare
from ..data.rows import select
from ..losses.similarity import Contrastive
from ..models import checkpoint, trainable
from ..models.encoder import DualEncoder
from ..models.encoder_checkpoint import compose_encoder, load_encoder, save_encoder
from ..models.readings import read
from ..recipe import Contrast
from ..report import scatter
from ..runs import Run, write_json
from ..settings import Encoder
from ..train.callbacks import Best
from ..train.captions import CaptionCollator, Captioned, captioned, check, keep
from ..train.contrast import ContrastTrainer, Formula, Towers, begin
from ..train.examination import Examination, order
from ..train.fit import Job, fit
from ..train.processes import turns
from ..types import Sample

VERSION = 1
BETAS = (0.9, 0.95)
RESAMPLES = 1000


def run(run: Run, section: Contrast, seed: int) -> None:
    """Pair images with reports, train, keep the best step, measure it on the test split."""
    plugin: Contrastive = plugins.load("contrasts", section.loss.name)
    data = prepare.load(run.parents[section.data])
    samples = {split: select(data.samples(split), section.where) for split in data.counts}
    rows = pair(run, section, samples)
    parent, encoder = open_encoder(run, section, seed)
    trained = trainable.apply(encoder, section.trainable, seed)
    begin(encoder, plugin, new=isinstance(section.model, Encoder) and section.model.path is None)
    print(trainable.text(trainable.table(encoder, section.trainable)))

    views = [row.view for each in rows.values() for row in each]
    frozen = trainable.is_frozen(section.trainable, "vision")
    with turns():
        look = keep(encoder, data.root, run.folder.parent / ".features", views, frozen=frozen)
        look.prepare(views, what="images with reports")
    texts = [row.text for each in rows.values() for row in each]
    kept = read(encoder, texts) if trainable.is_frozen(section.trainable, "text") else None
    towers = Towers(encoder, trained, given=look.given, chunk=section.chunk)
    collate, loss = CaptionCollator(encoder.tokenize, look, kept), formula(section, plugin)
    valid = Examination(rows["valid"], collate, section.train.batch)
    best = validation(run, section, towers, valid, loss)
    job = Job(
        answers=towers,
        asked=section.trainable,
        rows=rows["train"],
        ids=[row.id for row in rows["train"]],
        collator=collate,
        train=section.train,
        seed=seed,
        betas=BETAS,
    )
    curve = fit(run, job, ContrastTrainer, plugin=plugin, loss=loss, best=best)
    write_json(run.work / "curve.json", curve)
    told: dict[str, Any] = {"best": None, "history": []}
    if best is not None:
        best.restore()
        scores, _ = scored(run.name, towers, valid, seed)
        told = {"best": best.step, "history": best.history, "scores": scores["rows"]}
    write_json(run.work / "validation.json", told)
    labels = {sample.id: sample.labels for sample in samples.get("test", [])}
    measure(run, towers, Examination(rows["test"], collate, section.train.batch), labels, seed)
    asked = section.model_dump(mode="json")["trainable"]
    home = run.folder / "model"
    save_encoder(run.work / "model", encoder, trained, parent=parent, trained=asked, home=home)


def pair(run: Run, section: Contrast, samples: Mapping[str, Sequence[Sample]]) -> dict[str, list[Captioned]]:
    """Images and texts of every split, train, valid and test at least."""
    check(section, samples.get("train", []), run.name)
    found = {split: captioned(each, section.topic) for split, each in samples.items()}
    rows = {split: found.get(split, ([], []))[0] for split in ("train", "valid", "test")}
    run.set_aside([a for _, aside in found.values() for a in aside], sum(map(len, rows.values())), "samples")
    return rows


def open_encoder(run: Run, section: Contrast, seed: int) -> tuple[Path | None, DualEncoder]:
    """The encoder that training starts from, and the saved one that it stands on."""
    if isinstance(section.model, Encoder):
        return None, compose_encoder(section.model.model_dump(), seed)
    parent = checkpoint.folder_of(run.parents[section.model])
    return parent, load_encoder(parent)


def formula(section: Contrast, plugin: Contrastive) -> Formula:
    """The loss with its options."""
    options = plugins.bind("contrasts", section.loss.name, section.loss.options)
    return lambda sides: plugin.loss(sides, **options)


def validation(run: Run, section: Contrast, towers: Towers, exam: Examination, loss: Formula) -> Best | None:
    """What validates and keeps the best step; None, and said so, where there is nothing to validate on."""
    if not exam.rows:
        print("  the valid split has no such pairs: nothing is validated, and the last step is the result")
        run.event("not_validated")
        return None
    return Best(
        towers.weights,
        section.validate_every,
        lambda: exam.validate(towers, loss),
        order,
        lambda entry: run.event("validation", **entry),
    )


def measure(
    run: Run, towers: Towers, exam: Examination, labels: Mapping[str, Mapping[str, int]], seed: int
) -> None:
    """Write `scores.json` with intervals and chance, and the map of the test split."""
    told: dict[str, Any] = {"rows": [], "paired": [], "parts": []}
    if exam.rows:
        told, (images, texts) = scored(run.name, towers, exam, seed)
        known = [labels[row.sample] for row in exam.rows]
        scatter.write(run.work, images, texts, [row.id for row in exam.rows], known, seed=seed)
    else:
        print("  the test split has no such pairs: nothing is scored")
    write_json(run.work / "scores.json", told)
    run.event("scored", rows=len(told["rows"]))


def scored(
    name: str, towers: Towers, exam: Examination, seed: int
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
    """What `scores.json` says of a split, with intervals and chance; embeddings [rows, width] of images, of texts."""
    images, texts = exam.embed(towers)
    found = {m.name: m for m in exam.measures(images, texts)}
    rows, parts = judging.rows({(name, "clean"): found}, seed, RESAMPLES)
    chance = {part["metric"]: part["value"] for part in parts}
    rows = [{**row, "chance": chance[row["metric"]]} for row in rows]
    return {"rows": rows, "paired": [], "parts": parts}, (images, texts)
