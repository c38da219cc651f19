"""One image and one question: an encoder finds the most similar reports, and a model answers with them in its prompt.

    shelf = Shelf.open(Path("runs/NAME/retrieved"))   # index and encoder, how many reports are shown, in what words
    bundle = checkpoint.load(checkpoint.folder_of(Path("runs/NAME/taught")))
    reply = consult(bundle, [Path("knee.png")], "Is it severe?", shelf)

Same code and same numbers as `retrieve` and `evaluate` have for a sample of a data set. Nothing about the image is
kept: neither features nor answers are written anywhere. For research, not for clinical use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import runs
from ..data.chat import Chat
from ..data.prompts import WORDINGS, with_reports
from ..errors import DataError, ImageError, RecipeError, RunError
from ..images import files, suffixes
from ..inference import REPORT, Answer, ask, items
from ..models.encoder_checkpoint import load_encoder
from ..models.family import Bundle
from ..models.features import gridder
from ..models.passing import Passing
from ..retrieval.ask import Library, cut
from ..retrieval.domain import ABOUT, Router
from ..retrieval.found import Found
from ..retrieval.opened import Index
from ..settings import Choose, Generate, Template
from ..types import ImageRef, Message, Sample, View

NAME = "asked"
# What stands in the place of the right answer, which is not known: it decides how a question is asked, is never read.
STAND_INS: Mapping[str, Message] = {
    "open": Message(role="assistant", parts=("?",)),
    "closed": Message(role="assistant", parts=("Yes",)),
    "report": Message(role="assistant", parts=("?",), topic=REPORT),
}


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


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer and what it was given with.

    Args:
        question: as it was asked.
        answer: the model's words.
        logp: of a closed question the log-probability of its answer, of another one the mean over the answer's tokens,
            its end included; in nats.
        choices: of a closed question the log-probabilities of yes and no.
        reports: what was found, the most similar first; none without a shelf.
        index: which of several indexes was asked.
    """

    question: str
    answer: str
    logp: float | None
    choices: Mapping[str, float] = field(default_factory=dict)
    reports: tuple[Similar, ...] = ()
    index: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The reply for JSON."""
        return {**asdict(self), "choices": dict(self.choices), "reports": [asdict(r) for r in self.reports]}


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Open indexes, and how their reports are shown.

    Args:
        library: the indexes with their encoders.
        choose: how many are shown.
        template: in what words.
    """

    library: Library
    choose: Choose
    template: Template

    @classmethod
    def open(cls, folder: Path, *, k: int | None = None, prompt: str | None = None) -> Shelf:
        """Open what a `retrieve` stage read, shown as it shows them; or one index, its best reports in plain words.

        Args:
            folder: of a `retrieve` or an `index` stage.
            k: most reports shown; None leaves it to the stage (5 for an index).
            prompt: the wording; None leaves it to the stage (`plain` for an index).

        Raises:
            RunError: no such folder, or an index that was made anew since.
            RecipeError: no such wording.
        """
        folder = folder.resolve()
        stage = _stage(folder)
        if stage["stage"] == "index":
            indexes, choose, template = {"": Index.open(folder)}, Choose(), Template(name="plain")
        else:
            indexes, choose, template = _retrieved(folder, stage)
        choose = choose if k is None else choose.model_copy(update={"k": k})
        if prompt is not None and prompt not in WORDINGS:
            raise RecipeError(f"no wording '{prompt}'", expected=", ".join(WORDINGS))
        if prompt is not None:
            template = Template.model_validate({**template.model_dump(), "name": prompt})
        routed = len(indexes) > 1 and (folder / ABOUT).is_file()
        router = Router.load(folder) if routed else None
        library = Library(indexes, load_encoder, None, int(stage["seed"]), router)
        return cls(library=library, choose=choose, template=template)

    def find(self, sample: Sample, root: Path) -> Found:
        """The reports for a sample, and how many of them are shown."""
        return cut(self.library.find([sample], root, self.choose.k), self.choose, None)[0]


def consult(
    bundle: Bundle,
    images: Sequence[Path],
    question: str,
    shelf: Shelf | None = None,
    *,
    kind: str = "open",
    generate: Generate | None = None,
) -> Reply:
    """Answer one question about one study.

    Args:
        bundle: an open model, ready to answer (`inference.in_precision`).
        images: files of the study; reports of the same pictures are never shown.
        question: in any language that the model reads.
        shelf: where reports are found; None asks without.
        kind: `open` is answered in words, `closed` by yes or no, `report` is a request for a report.
        generate: longest answer and beams.

    Raises:
        DataError: no question or no image.
        ImageError: an image cannot be read.
        ModelError: the model reads no such images.
    """
    root, sample = asked(images, question, kind)
    found = Found(sample=sample) if shelf is None else shelf.find(sample, root)
    words = sample if shelf is None else with_reports(found.told(), shelf.template)
    look, told = Passing(bundle, root), list[Answer]()
    todo = items([sample], Chat.of(bundle), _see, gridder(bundle, root), lambda _: words)
    look.prepare([view for item in todo for view in item.views])
    ask(bundle, todo, look, generate or Generate(), lambda item, answers: told.extend(answers))
    (answer,) = told
    return Reply(
        question=question,
        answer=answer.text,
        logp=max(answer.choices.values()) if answer.choices else answer.logp,
        choices=answer.choices,
        reports=tuple(_similar(found)),
        index=found.index,
    )


def asked(images: Sequence[Path], question: str, kind: str = "open") -> tuple[Path, Sample]:
    """A question as a sample whose right answer is not known, and the root of its images.

    The patient is not known either: the first picture stands in, as in data sets without patients.

    Raises:
        DataError: no question, no image, or no such kind.
        ImageError: an image is missing, or of no kind that is read.
    """
    if not question.strip() or not images or kind not in STAND_INS:
        raise DataError(
            "nothing can be asked so", found=f"{len(images)} image(s), {len(question.strip())} letters, kind {kind!r}",
            expected=f"an image at least, a question, and a kind of {', '.join(STAND_INS)}",
        )  # fmt: skip
    for place in images:
        if not place.is_file():
            raise ImageError(
                "there is no such image", where=f"file {place.name[: files.SHOWN]}", expected="an image file",
                remedy="look at the spelling of the path",
            )  # fmt: skip
    places = [place.resolve() for place in images]  # a link is followed here: the file may lie anywhere
    root = Path(os.path.commonpath([place.parent for place in places]))
    refs = []
    for place in places:
        path = place.relative_to(root).as_posix()
        refs.append(ImageRef(path=path, sha256=files.hash_file(files.resolve(root, path)), form=_form(place)))
    turn = Message(role="user", parts=(*range(len(refs)), question.strip()))
    patient = f"image:{refs[0].sha256}"
    sample = Sample(id=NAME, patient=patient, images=tuple(refs), messages=(turn, STAND_INS[kind]))
    return root, sample


def _form(place: Path) -> str:
    """Whether a file holds a picture or a volume, by its name.

    Raises:
        ImageError: neither.
    """
    name = place.name.lower()
    ending = max((s for s in suffixes() if name.endswith(s)), key=len, default="")
    if not ending:
        raise ImageError(
            "this kind of image is not read", where=f"file {place.name[: files.SHOWN]}",
            found=place.suffix or "no suffix", expected=f"one of {', '.join(sorted(suffixes()))}",
        )  # fmt: skip
    return suffixes()[ending].form


def _see(sample: Sample, i: int) -> View:
    return View(sample.images[i], sample.id)


def _similar(found: Found) -> list[Similar]:
    each = zip(found.reports, found.similarities, found.behind, strict=True)
    return [
        Similar(id=r.id, similarity=s, text=r.text, behind=b, shown=i < found.kept)
        for i, (r, s, b) in enumerate(each)
    ]


def _stage(folder: Path) -> dict[str, Any]:
    """The manifest of a finished `index` or `retrieve` stage."""
    place = folder / runs.MANIFEST
    manifest = runs.read_json(place) if place.is_file() else {}
    if not isinstance(manifest, dict) or manifest.get("stage") not in ("index", "retrieve"):
        raise RunError(
            "no reports can be found in this folder", where=str(folder),
            found=f"stage {manifest['stage']}" if manifest.get("stage") else "no finished stage",
            expected="the folder of a `retrieve` or an `index` stage, such as runs/mmed_rag/retrieved",
        )  # fmt: skip
    return manifest


def _retrieved(folder: Path, stage: Mapping[str, Any]) -> tuple[dict[str, Index], Choose, Template]:
    """The indexes that a `retrieve` stage read, how many reports it shows, and in what words."""
    section = stage["section"]
    named = {"": section["index"]} if isinstance(section["index"], str) else section["index"]
    for name in named.values():
        place = folder.parent / name
        if runs.content(place) != stage["parents"][name]:
            raise RunError(
                "an index was made anew since reports were retrieved from it", where=str(place),
                remedy="run the recipe again, from `retrieve` on",
            )  # fmt: skip
    choose = Choose.model_validate(section["choose"])
    if choose.rule == "calibrated":
        k = int(runs.read_json(folder / "calibration.json")["k"])
        choose = choose.model_copy(update={"rule": "top", "k": k})
    indexes = {domain: Index.open(folder.parent / name) for domain, name in named.items()}
    return indexes, choose, Template.model_validate(section["prompt"])
