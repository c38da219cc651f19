"""IU X-Ray: 3955 chest reports of Indiana University, 7470 images (Demner-Fushman et al. 2016, 10.1093/jamia/ocv080).

| layout | files | images in | frontal or lateral |
|---|---|---|---|
| `r2gen` | `annotation.json`: train, val and test of `id`, `report`, `image_path` | `images/` | by place |
| `kaggle` | `indiana_reports.csv`, `indiana_projections.csv` | `images/images_normalized/` | stated |
| `openi` | `ecgen-radiology/*.xml`, or `NLMCXR_reports.tgz` as it is | `NLMCXR_png/` | by place |

MMed-RAG's users have R2Gen's files (Chen et al. 2020, arXiv 2010.16056), whose reports are the findings section alone.
By place means: the first image (`openi`: by name) is taken as frontal, the second as lateral. That is a custom and not
certain: torchxrayvision 1.5.7's table of views calls 584 of 3851 first images lateral. IU X-Ray has one study a
patient; the number behind CXR names both, in all layouts.

Labels, and questions made of them, are what the rule labeller reads in all of a report that is there, whatever
`section` asks for. No radiologist has checked them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ...errors import DataError
from ...metrics.findings import findings
from ...types import ImageRef, Message, Sample
from ..source import Read, Reader, RecordError, Source
from ..studies import LAYOUTS, SECTIONS, VIEWS, Study

IMAGES = {"r2gen": "images", "kaggle": "images/images_normalized", "openi": "NLMCXR_png"}
MARK = re.compile(r"-?XXXX-?")
STOPS = ".,;:"
ASKED = {
    "effusion_left": "a left pleural effusion",
    "effusion_right": "a right pleural effusion",
    "cardiomegaly": "cardiomegaly",
    "nodule": "a nodule",
    "pneumothorax": "a pneumothorax",
    "device": "a medical device",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    view: str
    section: str
    marks: str
    questions: str
    images: str
    prompt: str


def iu_xray(
    source: Source,
    *,
    layout: Literal["auto", "r2gen", "kaggle", "openi"] = "auto",
    view: Literal["frontal", "lateral", "both"] = "frontal",
    section: Literal["findings", "impression", "both"] = "both",
    marks: Literal["keep", "drop"] = "keep",
    questions: Literal["none", "findings"] = "none",
    images: str = "",
    prompt: str = "Write the report of this image.",
) -> Iterator[Read]:
    """One sample a study that asks for its report, and, if wanted, one for each finding that the report decides.

    Args:
        source: its root holds the files of one layout.
        layout: `auto` goes by what is there.
        view: which image is shown; `both` shows one of each, or the one there is.
        section: what the report is made of; `both` is the findings and behind them the impression, or either.
        marks: `drop` takes out XXXX, which stands for words that de-identification removed; `keep` shows them.
        questions: `findings` asks whether a finding is there, of findings that the report affirms or denies.
        images: folder of the images below the root; "" is the layout's own.
        prompt: what is asked for a report.

    Yields:
        `(sample, split or None, "file:line")`. The topic is `report` or the finding's name. Attributes: `projection`,
        `projection_from` (`file` or `place`), `problems` (MeSH terms joined by ";", where the layout has them).
        In `annotation.json` the line is the record's number within its split, from 1.

    Raises:
        DataError: no layout or several, no impression (`r2gen`), or a table without its columns.
    """
    kind = _layout(source.folder(), layout)
    if kind == "r2gen" and section == "impression":
        raise DataError(
            "R2Gen's reports are the findings section; they hold no impression", where="option section",
            remedy="set `section: findings`, or read Kaggle's or Open-i's files",
        )  # fmt: skip
    options = _Options(
        view=view, section=section, marks=marks, questions=questions, images=images or IMAGES[kind], prompt=prompt
    )  # fmt: skip
    for study in LAYOUTS[kind].read(source):
        try:
            made = _samples(study, options)
        except DataError as error:
            source.reject_error(study.file, study.line, study.id, error)
            continue
        for sample in made:
            yield sample, study.split, f"{study.file}:{study.line}"


def _layout(root: Path, asked: str) -> str:
    """The layout that is asked for, or the one whose files are there."""
    wanted = list(LAYOUTS) if asked == "auto" else [asked]
    found = [kind for kind in wanted if any((root / name).exists() for name in LAYOUTS[kind].signs)]
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"{len(found)} layouts of IU X-Ray in the data root" if found else "no files of IU X-Ray in the data root",
        where="data root", found=", ".join(found),
        expected=", or ".join(" or ".join(LAYOUTS[kind].signs) for kind in wanted),
        remedy="name one with `layout`" if found else "set `root` to the folder that holds them",
    )  # fmt: skip


def _samples(study: Study, options: _Options) -> list[Sample]:
    """The report, then the questions.

    Raises:
        RecordError: nothing is left of the report, or the study has no such image.
    """
    told = _report(study, options)
    shown = _shown(study, options.view)
    whole = " ".join(study.sections[name] for name in SECTIONS if study.sections[name])
    stated = {name: value for name, value in findings(whole).items() if value is not None}
    folder, patient = PurePosixPath(options.images), f"CXR{study.number}"
    about = {
        "projection": " and ".join(projection for _, projection in shown),
        "projection_from": "file" if study.known else "place",
    }
    common: dict[str, Any] = {
        "patient": patient,
        "study": patient,
        "images": tuple(ImageRef(path=(folder / path).as_posix(), kind="xray") for path, _ in shown),
        "labels": stated,
        "attributes": about | ({"problems": study.problems} if study.problems else {}),
    }
    turns = [("", options.prompt, told, "report")]
    if options.questions == "findings":
        turns += [
            (f"-{name}", _question(name), "Yes" if value else "No", name) for name, value in stated.items()
        ]
    places = tuple(range(len(shown)))
    return [
        Sample(
            id=f"{study.id}{end}",
            messages=(
                Message(role="user", parts=(*places, question)),
                Message(role="assistant", parts=(answer,), topic=topic),
            ),
            **common,
        )
        for end, question, answer, topic in turns
    ]


def _question(name: str) -> str:
    """Whether a finding is there; a finding that the lexicon has gained is called by its name."""
    return f"Is there {ASKED.get(name) or 'a ' + name.replace('_', ' ')}?"


def _report(study: Study, options: _Options) -> str:
    """The text that is asked for."""
    wanted = SECTIONS if options.section == "both" else (options.section,)
    text = " ".join(study.sections[name] for name in wanted if study.sections[name])
    bare = _unmarked(text)
    if not any(letter.isalnum() for letter in bare):
        sizes = ", ".join(f"{name}: {len(study.sections[name])} characters" for name in SECTIONS)
        raise RecordError(
            "the report is empty", field="report", found=sizes,
            remedy="drop the record, or ask for another `section`",
        )  # fmt: skip
    return bare if options.marks == "drop" else text


def _unmarked(text: str) -> str:
    """A text without its marks; a stop that stood behind a mark stands behind the word before it."""
    kept: list[str] = []
    for word in MARK.sub(" ", text).split():
        if word.strip(STOPS):
            kept.append(word)
        elif kept:
            kept[-1] = kept[-1].rstrip(STOPS) + word[-1]
    return " ".join(kept)


def _shown(study: Study, view: str) -> list[tuple[str, str]]:
    """The first image of each projection that is asked for."""
    first: dict[str, str] = {}
    for path, projection in study.views:
        first.setdefault(projection, path)
    found = [(first[name], name) for name in VIEWS if view in (name, "both") and name in first]
    if not found:
        wanted = "" if view == "both" else f"{view} "
        raise RecordError(
            f"the study has no {wanted}image", field="images", found=f"{len(study.views)} image(s)",
            remedy="drop the record, or ask for another `view`",
        )  # fmt: skip
    return found


READER = Reader(
    read=iu_xray,
    official="R2Gen's annotation.json (2069, 296 and 590 studies); Kaggle's and Open-i's files have none",
)
