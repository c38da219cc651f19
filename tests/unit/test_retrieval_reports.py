"""The 3955 reports of the Indiana University chest X-ray collection: indexed, searched by text and by image.

They are read from the package `torchxrayvision` (its file `NLMCXR_reports.tgz`, CC BY-NC-ND 4.0, Demner-Fushman et al.
2016, doi:10.1093/jamia/ocv080), where it is installed, and never copied.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tarfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import models_retrieval as made
from sightline.images.phantom import draw
from sightline.models.encoder import DualEncoder
from sightline.retrieval import embed, store
from sightline.retrieval.report import Report, normalise
from sightline.retrieval.search import Asker, search
from sightline.retrieval.store import Store
from sightline.types import ImageRef

PACKAGE = importlib.util.find_spec("torchxrayvision")
ARCHIVE = (
    Path(PACKAGE.submodule_search_locations[0], "data/NLMCXR_reports.tgz") if PACKAGE else Path("absent")
)
pytestmark = pytest.mark.skipif(
    not ARCHIVE.is_file(), reason="the package torchxrayvision is not installed: no real reports here"
)


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    """Findings and impression of every file; a file without either has its title."""
    found = []
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if member.name.endswith(".xml"):
                root = ElementTree.parse(archive.extractfile(member)).getroot()
                parts = {a.get("Label"): (a.text or "").strip() for a in root.iter("AbstractText")}
                text = " ".join(t for t in (parts.get("FINDINGS"), parts.get("IMPRESSION")) if t)
                name = root.find("uId").get("id")
                found.append(
                    Report(id=name, patient=name, split="train", text=text or "no text", domain="xray")
                )
    return found


def build(folder: Path, reports: Sequence[Report], encoder: DualEncoder, collapse: float = 1.0) -> Store:
    store.write(folder, reports, lambda part: embed.texts(encoder, [r.text for r in part]), collapse=collapse)
    return Store.open(folder)


def finds_itself(opened: Store, reports: Sequence[Report], encoder: DualEncoder, least: float) -> float:
    """Share of the texts of which the first report found is the same text; all are at least that similar."""
    queries = embed.texts(encoder, [r.text for r in reports])
    hits = search(opened, queries, [Asker()] * len(reports), 3)
    first = opened.reports([each[0].row for each in hits])
    assert min(each[0].similarity for each in hits) > least
    same = [normalise(a.text) == normalise(b.text) for a, b in zip(first, reports, strict=True)]
    others = search(opened, queries[:50], [Asker(patient=r.patient) for r in reports[:50]], 3)
    for report, each in zip(reports, others, strict=False):
        assert report.id not in {r.id for r in opened.reports([h.row for h in each])}
        assert len(each) == 3
    return float(np.mean(same))


def test_every_report_finds_itself_and_an_image_finds_some(tmp_path: Path, reports: list[Report]) -> None:
    assert len(reports) == 3955
    encoder = made.encoder(2048)
    opened = build(tmp_path / "store", reports, encoder)
    distinct = len({normalise(r.text) for r in reports})
    assert (opened.about["reports"], opened.about["cards"]) == (3955, distinct)
    assert 3000 < distinct < 3400  # one in six is word for word another's
    assert finds_itself(opened, reports[:400], encoder, 1 - 1e-5) == 1.0
    pixels = draw(np.random.default_rng(0), {"effusion_left": 3}, size=64)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    sha = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    look = embed.pictures(encoder, tmp_path, tmp_path / "features")
    (hits,) = search(opened, look([[ImageRef(path="a.png", sha256=sha)]]), [Asker()], 5, domain="xray")
    assert len({h.row for h in hits}) == 5
    assert [h.similarity for h in hits] == sorted((h.similarity for h in hits), reverse=True)


def test_nearly_equal_reports_are_joined(tmp_path: Path, reports: list[Report]) -> None:
    encoder = made.encoder(256)
    opened = build(tmp_path, reports, encoder, collapse=0.8)
    assert opened.about["groups"] < opened.about["cards"] - 50
    hits = search(opened, embed.texts(encoder, [r.text for r in reports[:20]]), [Asker()] * 20, 5)
    for each in hits:
        assert len({int(opened.group[opened.table["card"][h.row].as_py()]) for h in each}) == 5


@pytest.mark.slow
def test_every_report_finds_itself_by_the_kits_encoder(tmp_path: Path, reports: list[Report]) -> None:
    """Reports that differ in a full stop are one card, which has the embedding of the first of them."""
    from sightline.errors import SightlineError
    from sightline.models.encoder_checkpoint import compose_encoder
    from sightline.settings import Encoder

    try:
        encoder = compose_encoder(Encoder().model_dump(), 0)
    except SightlineError as error:
        pytest.skip(f"the kit's encoder is not installed: {error.what}")
    opened = build(tmp_path, reports, encoder)
    share = finds_itself(opened, reports[:200], encoder, 0.99)
    print(f"{share:.3f} of 200 reports find themselves first")
    assert share > 0.98
