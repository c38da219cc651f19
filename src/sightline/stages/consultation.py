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

from ..data.chat import Chat
from ..data.prompts import with_reports
from ..errors import DataError, ImageError
from ..images import files, suffixes
from ..inference import REPORT, Answer, ask, items
from ..models.family import Bundle
from ..models.features import gridder
from ..models.passing import Passing
from ..retrieval.found import Found, Similar, listed
from ..retrieval.shelf import Shelf
from ..settings import Generate
from ..types import ImageRef, Message, Sample, View

NAME = "asked"
# What stands in the place of the right answer, which is not known: it decides how a question is asked, is never read.
STAND_INS: Mapping[str, Message] = {
    "open": Message(role="assistant", parts=("?",)),
    "closed": Message(role="assistant", parts=("Yes",)),
    "report": Message(role="assistant", parts=("?",), topic=REPORT),
}


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
        reports=listed(found),
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
