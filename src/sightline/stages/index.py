"""index: reports with their embeddings in a store that is searched by images, and the images they belong to."""

from __future__ import annotations

from ..data import prepare
from ..data.rows import select
from ..errors import RunError
from ..models.checkpoint import folder_of
from ..models.encoder_checkpoint import load_encoder
from ..recipe import Index
from ..retrieval import embed, opened, store
from ..retrieval.report import gather
from ..runs import Run, digest

VERSION = 2


def run(run: Run, section: Index, seed: int) -> None:
    """Gather reports, embed and store them, embed some of their images."""
    data = prepare.load(run.parents[section.data])
    reports, samples = [], 0
    for split in section.split:
        if split in data.counts:
            chosen = select(data.samples(split), section.where)
            samples += len(chosen)
            reports += gather(chosen, split, section.topic)
    if not reports:
        raise RunError(
            "there is no report to index", where=f"stage {run.name}",
            found=f"{samples} samples of {' and '.join(section.split)}, none with an answer of topic '{section.topic}'",
            remedy="check `split`, `topic` and `where`; `sightline data show` lists topics and attributes",
        )  # fmt: skip
    place = folder_of(run.parents[section.model])
    encoder = load_encoder(place)
    about = store.write(
        run.work / opened.STORE,
        reports,
        lambda part: embed.texts(encoder, [r.text for r in part]),
        collapse=section.collapse,
        approximate_above=section.approximate_above,
    )
    seen = sorted((r for r in reports if r.images), key=lambda r: digest(str(seed), "index", r.id))
    studies = [r.images for r in seen[: opened.ROUTED]]
    look = embed.pictures(encoder, data.root, run.folder.parent / ".features")
    counts = {name: about[name] for name in ("reports", "cards", "groups", "search")}
    opened.save(
        run.work, run.folder, encoder=place, root=data.root, studies=studies, embeddings=look(studies),
        facts={"topic": section.topic, "splits": list(section.split), **counts, "without": samples - len(reports)},
    )  # fmt: skip
    run.event("indexed", **counts)
    print(
        f"  {about['reports']} reports, {about['cards']} different ones in {about['groups']} groups; "
        f"{about['search']} search; {samples - len(reports)} samples have none"
    )
