"""IU X-Ray in its three layouts; and the 3955 real reports, where the package that holds them is installed.

`torchxrayvision` has them as `NLMCXR_reports.tgz` (CC BY-NC-ND 4.0): they are read there and never copied. There are
no images: black PNG files with the right names stand in for those of 20 reports. All other records are made up.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline.data import prepare
from sightline.data.readers.iu_xray import ASKED, iu_xray
from sightline.data.source import Source
from sightline.errors import DataError
from sightline.metrics.findings import LEXICON
from sightline.types import Sample

PACKAGE = importlib.util.find_spec("torchxrayvision")
DATA = Path(PACKAGE.submodule_search_locations[0], "data") if PACKAGE else Path("absent")
real = pytest.mark.skipif(
    not (DATA / "NLMCXR_reports.tgz").is_file(),
    reason="the package torchxrayvision is not installed: no real reports here",
)

FINDINGS = "Heart size is normal. No pleural effusion."
TWO = {"id": "CXR7_IM-0007", "report": "Clear.", "image_path": ["CXR7_IM-0007/0.png", "CXR7_IM-0007/1.png"]}
ONE = {"id": "CXR8_IM-0008-1001", "report": FINDINGS, "image_path": ["CXR8_IM-0008-1001/0.png"]}
HEADS = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")
XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="CXR{n}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">{impression}</AbstractText>
</Abstract></Article></MedlineCitation>
<MeSH><major>Cardiomegaly/mild</major><major>Opacity/lung/left</major><major>Opacity/lung/right</major>
<automatic>Cardiac Silhouette</automatic></MeSH>{images}</eCitation>"""


def read(root: Path, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    source = Source(root=root, seed=0, images=root)
    return list(iu_xray(source, **options)), source.rejected


def samples(root: Path, **options: Any) -> list[Sample]:
    found, rejected = read(root, **options)
    assert rejected == []
    return [sample for sample, _, _ in found]


def annotate(root: Path, **splits: Any) -> None:
    (root / "annotation.json").write_text(json.dumps(splits), encoding="utf-8")


def tables(root: Path, reports: Sequence[Mapping[str, str]], views: Sequence[tuple[str, str, str]]) -> None:
    with (root / "indiana_reports.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.DictWriter(stream, HEADS, restval="")
        rows.writeheader()
        rows.writerows(reports)
    with (root / "indiana_projections.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("uid", "filename", "projection"), *views])


def xml(
    number: int, findings: str = FINDINGS, impression: str = "Normal.", images: Sequence[str] = ()
) -> bytes:
    held = "".join(f'<parentImage id="{name}"><caption>x</caption></parentImage>' for name in images)
    return XML.format(n=number, findings=findings, impression=impression, images=held).encode()


def folder(root: Path, **files: bytes) -> None:
    (root / "ecgen-radiology").mkdir()
    for name, data in files.items():
        (root / "ecgen-radiology" / f"{name[1:]}.xml").write_bytes(data)


def archive(root: Path, files: Sequence[tuple[str, bytes]]) -> Path:
    path = root / "NLMCXR_reports.tgz"
    with tarfile.open(path, "w:gz") as made:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


def test_r2gen_has_the_official_split_and_the_first_image_as_frontal(tmp_path: Path) -> None:
    annotate(tmp_path, train=[TWO], val=[ONE], test=[{**TWO, "id": "CXR9_IM-0009"}])
    found, rejected = read(tmp_path)
    assert rejected == []
    assert [(s.id, s.patient, s.study, split, origin) for s, split, origin in found] == [
        ("CXR7_IM-0007", "CXR7", "CXR7", "train", "annotation.json/train:1"),
        ("CXR8_IM-0008-1001", "CXR8", "CXR8", "valid", "annotation.json/val:1"),
        ("CXR9_IM-0009", "CXR9", "CXR9", "test", "annotation.json/test:1"),
    ]
    first, second, _ = (s for s, _, _ in found)
    assert [m.parts for m in first.messages] == [(0, "Write the report of this image."), ("Clear.",)]
    assert (first.messages[1].topic, first.images[0].path, first.images[0].kind) == (
        "report", "images/CXR7_IM-0007/0.png", "xray",
    )  # fmt: skip
    assert first.attributes == {"projection": "frontal", "projection_from": "place"}
    assert second.labels == {"cardiomegaly": 0, "effusion_left": 0, "effusion_right": 0}


def test_views_of_r2gen_go_by_place(tmp_path: Path) -> None:
    annotate(tmp_path, train=[TWO, ONE])
    both = samples(tmp_path, view="both", images="pictures", prompt="Report?")
    assert [s.messages[0].parts for s in both] == [(0, 1, "Report?"), (0, "Report?")]
    assert [r.path for r in both[0].images] == ["pictures/CXR7_IM-0007/0.png", "pictures/CXR7_IM-0007/1.png"]
    assert [s.attributes["projection"] for s in both] == ["frontal and lateral", "frontal"]
    found, rejected = read(tmp_path, view="lateral")
    assert [s.images[0].path for s, _, _ in found] == ["images/CXR7_IM-0007/1.png"]
    assert [(r["file"], r["line"], r["reason"], r["found"]) for r in rejected] == [
        ("annotation.json/train", 2, "the study has no lateral image", "1 image(s)")
    ]


def test_bad_records_of_r2gen_are_refused_one_by_one(tmp_path: Path) -> None:
    rows = [{**TWO, "report": " "}, {**TWO, "report": 3}, {**TWO, "image_path": []}, "text", TWO]
    rows.append({**TWO, "id": "s555", "image_path": ["p10/a.jpg"]})
    rows.append({**TWO, "id": "12", "image_path": ["CXR12_IM-1-1001.png"]})
    annotate(tmp_path, train=rows)
    found, rejected = read(tmp_path)
    assert [(s.id, s.patient) for s, _, _ in found] == [("CXR7_IM-0007", "CXR7"), ("12", "CXR12")]
    assert [(r["line"], r["field"], r["reason"]) for r in rejected] == [
        (1, "report", "the report is empty"),
        (2, "report", "the report is no text"),
        (3, "image_path", "the record names no images"),
        (4, "", "a record is not a JSON object"),
        (6, "id", "no CXR number: the patient is unknown"),
    ]
    with pytest.raises(DataError, match="they hold no impression"):
        read(tmp_path, section="impression")
    (tmp_path / "annotation.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="no lists of records"):
        read(tmp_path)


def test_kaggles_tables_state_the_projection(tmp_path: Path) -> None:
    report = {
        "uid": "7",
        "Problems": "Opacity;Nodule",
        "findings": "Left lung\nnodule.",
        "impression": "A nodule.",
    }
    views = [("7", "7_b.png", "Lateral"), ("7", "7_a.png", "Frontal"), ("7", "7_c.png", "Frontal")]
    tables(tmp_path, [report, {"uid": "8", "impression": "Stable."}], [*views, ("8", "8.png", "Lateral")])
    found, rejected = read(tmp_path, view="both")
    (first, split, origin), (second, _, place) = found
    assert (rejected, first.id, first.patient, split) == ([], "CXR7", "CXR7", None)
    assert (origin, place) == ("indiana_reports.csv:2", "indiana_reports.csv:4")
    assert [r.path for r in first.images] == [
        "images/images_normalized/7_a.png", "images/images_normalized/7_b.png",
    ]  # fmt: skip
    assert first.messages[1].text == "Left lung\nnodule. A nodule."
    assert first.attributes == {
        "projection": "frontal and lateral", "projection_from": "file", "problems": "Opacity;Nodule",
    }  # fmt: skip
    assert (second.messages[1].text, second.attributes["projection"]) == ("Stable.", "lateral")
    only, rejected = read(tmp_path, section="findings")
    assert [s.messages[1].text for s, _, _ in only] == ["Left lung\nnodule."]
    assert [(r["id"], r["reason"], r["found"]) for r in rejected] == [
        ("CXR8", "the report is empty", "findings: 0 characters, impression: 7 characters")
    ]
    _, rejected = read(tmp_path)
    assert [(r["id"], r["reason"]) for r in rejected] == [("CXR8", "the study has no frontal image")]


def test_bad_rows_of_kaggles_tables_are_refused_one_by_one(tmp_path: Path) -> None:
    reports = [{"uid": n, "findings": "Clear."} for n in ("1", "x", "2")]
    tables(
        tmp_path, reports, [("1", "1.png", "Frontal"), ("1", "2.png", "Oblique"), ("5", "5.png", "Frontal")]
    )
    with (tmp_path / "indiana_reports.csv").open("ab") as stream:
        stream.write(b'3,"a" b,,,,,,\n4,,,,,,\n6,,,,,,\xff,\n7,,,,,,Clear.,')
    found, rejected = read(tmp_path)
    assert [s.id for s, _, _ in found] == ["CXR1"]
    assert [(r["file"][8:11], r["line"], r["reason"].split(":")[0]) for r in rejected] == [
        ("pro", 3, "the row names no image, or neither of two projections"),
        ("rep", 3, "no CXR number"),
        ("rep", 4, "the study has no frontal image"),
        ("rep", 5, "the row is not sound CSV"),
        ("rep", 6, "the row has more or fewer cells than the table"),
        ("rep", 7, "the row holds bytes that are not UTF-8"),
        ("rep", 8, "the study has no frontal image"),
        ("pro", 4, "no report belongs to this image"),
    ]
    (tmp_path / "indiana_projections.csv").write_text("uid,filename\n1,1.png\n")
    with pytest.raises(DataError, match="lacks columns") as caught:
        read(tmp_path)
    assert caught.value.found == "no projection"
    (tmp_path / "indiana_projections.csv").unlink()
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path)


def test_open_i_reads_the_same_from_folder_and_archive(tmp_path: Path) -> None:
    files = {
        "10": xml(10, images=("CXR10_IM-1-4001", "CXR10_IM-1-3001")),
        "9": xml(9, "Effusion &amp;\n  nodule.", images=("CXR9_IM-2-1001",)),
    }
    unpacked, packed = tmp_path / "unpacked", tmp_path / "packed"
    unpacked.mkdir()
    packed.mkdir()
    folder(unpacked, **{f"n{name}": data for name, data in files.items()})
    archive(packed, [("ecgen-radiology/readme.txt", b""), *((f"./{n}.xml", d) for n, d in files.items())])
    found = read(unpacked, view="both")
    assert found == read(packed, view="both")
    (first, split, origin), (second, _, _) = found[0]
    assert (first.id, first.patient, split, origin) == ("CXR9", "CXR9", None, "ecgen-radiology/9.xml:1")
    assert first.messages[1].text == "Effusion & nodule. Normal."
    assert [r.path for r in second.images] == [
        "NLMCXR_png/CXR10_IM-1-3001.png",
        "NLMCXR_png/CXR10_IM-1-4001.png",
    ]
    assert second.attributes == {
        "projection": "frontal and lateral", "projection_from": "place", "problems": "Cardiomegaly;Opacity",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>',
            "the XML declares a document type",
        ),
        (
            b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
            "the XML declares a document type",
        ),
        (b"<eCitation><uId", "the XML is not sound"),
        (b'<?xml version="1.0" encoding="none"?><a/>', "the XML is not sound"),
        (b"<eCitation/>", "no CXR number: the patient is unknown"),
        (xml(1), "the study has no frontal image"),
        (xml(1, "", "", ["CXR1_1"]), "the report is empty"),
        (xml(1, "XXXX XXXX.", "x" * (1 << 20)), "the file is too large for a report"),
    ],
    ids=range(8),
)
def test_a_bad_file_of_open_i_is_refused_alone(tmp_path: Path, data: bytes, reason: str) -> None:
    folder(tmp_path, n1=data, n2=xml(2, images=["CXR2_a"]))
    found, rejected = read(tmp_path)
    assert [s.id for s, _, _ in found] == ["CXR2"]
    assert [r["file"] for r in rejected] == ["ecgen-radiology/1.xml"]
    assert rejected[0]["reason"].startswith(reason)


def test_what_stands_before_the_damage_of_an_archive_is_kept(tmp_path: Path) -> None:
    noise = [(f"{n}.xml", xml(n, f"{hash(n)} {'ab' * n}", images=[f"CXR{n}_a"])) for n in range(1, 400)]
    path = archive(tmp_path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found, rejected = read(tmp_path)
    assert 20 < len(found) < 399
    assert [r["reason"] for r in rejected] == ["the archive is cut off or damaged"]
    path.write_bytes(b"no archive")
    found, rejected = read(tmp_path)
    assert (found, len(rejected)) == ([], 1)


def test_marks_can_be_dropped_and_labels_do_not_change(tmp_path: Path) -> None:
    text = "XXXX. Normal chest x-XXXX. Compared to XXXX, XXXX. No XXXX of effusion, XXXX-year-old."
    annotate(tmp_path, train=[{**ONE, "report": text}])
    (kept,), (dropped,) = samples(tmp_path), samples(tmp_path, marks="drop")
    assert kept.messages[1].text == text
    assert dropped.messages[1].text == "Normal chest x. Compared to. No of effusion, year-old."
    assert kept.labels == dropped.labels == {"effusion_left": 0, "effusion_right": 0}
    annotate(tmp_path, train=[{**ONE, "report": "XXXX XXXX-XXXX."}])
    for marks in ("keep", "drop"):
        found, rejected = read(tmp_path, marks=marks)
        assert (found, [r["reason"] for r in rejected]) == ([], ["the report is empty"])


def test_questions_are_asked_of_what_a_report_decides(tmp_path: Path) -> None:
    annotate(tmp_path, train=[{**TWO, "report": "Heart is enlarged. Small left effusion. Possible nodule."}])
    found = samples(tmp_path, questions="findings", view="both")
    assert [(s.id, s.messages[0].parts, s.messages[1].text, s.messages[1].topic) for s in found[1:]] == [
        ("CXR7_IM-0007-effusion_left", (0, 1, "Is there a left pleural effusion?"), "Yes", "effusion_left"),
        ("CXR7_IM-0007-cardiomegaly", (0, 1, "Is there cardiomegaly?"), "Yes", "cardiomegaly"),
    ]
    assert found[0].labels == found[1].labels == {"effusion_left": 1, "cardiomegaly": 1}
    assert found[0].messages[1].topic == "report"
    assert set(ASKED) == set(LEXICON)


def test_the_layout_is_found_or_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files of IU X-Ray") as caught:
        read(tmp_path)
    assert "annotation.json, or indiana_reports.csv" in caught.value.expected
    annotate(tmp_path, train=[TWO])
    folder(tmp_path, n3=xml(3, images=["CXR3_a"]))
    with pytest.raises(DataError, match="2 layouts of IU X-Ray") as caught:
        read(tmp_path)
    assert caught.value.found == "r2gen, openi"
    assert [s.id for s in samples(tmp_path, layout="openi")] == ["CXR3"]
    assert [s.id for s in samples(tmp_path, layout="r2gen")] == ["CXR7_IM-0007"]
    with pytest.raises(DataError, match="no files of IU X-Ray"):
        read(tmp_path, layout="kaggle")


def test_an_official_split_is_prepared(tmp_path: Path) -> None:
    rows = {
        split: [{**ONE, "id": f"CXR{n}_a", "image_path": [f"{n}.png"]}]
        for n, split in enumerate(("train", "val", "test"))
    }
    annotate(tmp_path, **rows)
    (tmp_path / "images").mkdir()
    for n in range(3):
        Image.new("L", (8, 8), n).save(tmp_path / "images" / f"{n}.png")
    made = prepare.prepare(
        "iu_xray", {}, root=tmp_path, out=tmp_path / "out", seed=0, shares={"train": 1.0}, by="official"
    )
    assert made.counts == {"train": 1, "valid": 1, "test": 1}
    assert made.samples("valid")[0].id == "CXR1_a"


@real
def test_the_real_reports_are_read_or_refused_with_a_reason() -> None:
    found, rejected = read(DATA)
    assert (len(found), len(rejected)) == (3826, 129)  # of 3955
    assert Counter(row["reason"] for row in rejected) == {
        "the study has no frontal image": 101, "the report is empty": 28,
    }  # fmt: skip
    assert len({s.patient for s, _, _ in found}) == 3826
    assert [s.id for s, _, _ in found[:4]] == ["CXR1", "CXR2", "CXR3", "CXR4"]
    assert sum("XXXX" in s.messages[1].text for s, _, _ in found) == 1780
    assert sum(s.attributes["problems"] == "normal" for s, _, _ in found) == 1354


@real
@pytest.mark.parametrize(
    ("options", "count", "images", "marked"),
    [
        ({"view": "both"}, 3826, 3826 + 3391, 1780),
        ({"view": "lateral"}, 3391, 3391, 1542),
        ({"section": "findings"}, 3337, 3337, 1426),
        ({"section": "impression"}, 3820, 3820, 644),
        ({"marks": "drop"}, 3826, 3826, 0),
    ],
    ids=str,
)
def test_options_on_the_real_reports(options: dict[str, str], count: int, images: int, marked: int) -> None:
    found = [sample for sample, _, _ in read(DATA, **options)[0]]
    assert (len(found), sum(len(s.images) for s in found)) == (count, images)
    assert sum("XXXX" in s.messages[1].text for s in found) == marked


@real
def test_labels_agree_with_the_terms_that_were_coded_by_hand() -> None:
    found = [sample for sample, _, _ in read(DATA, questions="findings")[0]]
    asked = Counter(s.messages[1].topic for s in found)
    assert asked["report"] == 3826
    assert 2600 < asked["effusion_left"] < 2900
    for name, term in (("cardiomegaly", "Cardiomegaly"), ("effusion_left", "Pleural Effusion")):
        affirmed = [s for s in found if (s.messages[1].topic, s.messages[1].text) == (name, "Yes")]
        coded = sum(term in s.attributes["problems"].split(";") for s in affirmed)
        assert len(affirmed) > 85
        assert coded / len(affirmed) >= 0.94


@real
def test_the_first_image_is_not_always_frontal() -> None:
    with gzip.open(DATA / "nlmcxr_tsne_pa.csv.gz", "rt") as stream:
        seen = {row["imageid"]: row["tsne-view"] for row in csv.DictReader(stream)}
    first = [Path(s.images[0].path).stem for s, _, _ in read(DATA)[0]]
    assert Counter(seen.values()) == {"PA": 3267, "L": 584}
    assert Counter(seen.get(name, "unknown") for name in first) == {"PA": 3247, "L": 579}


@real
def test_twenty_real_reports_are_prepared_with_stand_in_images(tmp_path: Path) -> None:
    (tmp_path / "NLMCXR_reports.tgz").symlink_to(DATA / "NLMCXR_reports.tgz")
    (tmp_path / "NLMCXR_png").mkdir()
    for sample, _, _ in read(DATA)[0][:20]:
        Image.new("L", (8, 8), int(sample.id[3:])).save(tmp_path / sample.images[0].path)
    shares = {"train": 0.7, "valid": 0.1, "test": 0.2}
    made = prepare.prepare(
        "iu_xray", {"questions": "findings"}, root=tmp_path, out=tmp_path / "out", seed=0, shares=shares, max_bad=1.0
    )  # fmt: skip
    held = [s for split in made.counts for s in made.samples(split)]
    reports = [s for s in held if s.messages[1].topic == "report"]
    assert len(reports) == 20
    assert not made.audits[0].leaks
    patients = {split: {s.patient for s in made.samples(split)} for split in made.counts}
    assert sum(len(each) for each in patients.values()) == 20
