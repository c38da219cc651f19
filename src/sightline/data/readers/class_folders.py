"""Images sorted into folders that are their classes, as questions: Mendeley's knee X-rays, and any set laid out so.

    0Normal/NormalG0 (1).png     user <image> Which grade of knee osteoarthritis is shown: Normal, ... or Severe?
    ...                          assistant Normal   (topic grade; labels grade 0)
    4Severe/SevereG4 (9).png

| data set | folders | options |
|---|---|---|
| Digital Knee X-ray Images, 10.17632/t9ndx37v5h.1: 1650 images graded after Kellgren and Lawrence by two experts | \
`MedicalExpert-I/0Normal` ... `4Severe`, and `MedicalExpert-II` with the same images | `folder: MedicalExpert-I` |
| Knee Osteoarthritis Severity Grading, 10.17632/56rmx5bjcr.1: OAI | `train/0` ... `4`, `val`, `test`, `auto_test` | \
`names`, `patient: "^([0-9]+)[LR]"` for both knees of a person, `skip: [auto_test]`: it repeats `test` |

A folder's name is read as a grade, the digits in front, and a name, the rest. Patients are not given unless the files'
names tell: the image stands in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import DataError, RecipeError
from ...metrics.chinese import HAN
from ...types import ImageRef, Message, Sample
from ..source import Read, Reader, RecordError, Source, clean, stand_in

SPLITS = {
    "train": "train", "training": "train", "val": "valid", "valid": "valid", "validation": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
LITTER = (
    "thumbs.db",
    "desktop.ini",
)  # what systems leave behind; names with a stop in front are left out as well
CLASS = re.compile(r"^([0-9]+)?[\s._-]*(.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Class:
    """One class: its folder's name, its grade and its name in answers."""

    folder: str
    grade: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    question: str
    answer: str
    topic: str
    patient: re.Pattern[str] | None
    kind: str
    classes: Mapping[str, _Class]

    @property
    def asked(self) -> str:
        """The question with the classes in their order."""
        names = list(dict.fromkeys(c.name for c in sorted(self.classes.values(), key=lambda c: c.grade)))
        comma, last = ("、", "还是") if HAN.search(self.question) else (", ", " or ")
        listed = last.join([*filter(None, [comma.join(names[:-1])]), names[-1]])
        return self.question.replace("{classes}", listed)


def class_folders(
    source: Source,
    *,
    folder: str = "",
    question: str = "Which grade of knee osteoarthritis is shown: {classes}?",
    answer: str = "{name}",
    names: dict[str, str] | None = None,
    topic: str = "grade",
    patient: str = "",
    kind: str = "xray",
    skip: list[str] | None = None,
) -> Iterator[Read]:
    """One sample an image.

    Args:
        source: its root holds class folders, or folders train, val and test of them.
        folder: where those are, below the root.
        question: what is asked; `{classes}` are the names in the order of their grades. Any language.
        answer: what is answered; `{name}` is the class. `Knee X-ray, {name}.` under the topic `report` is a caption
            that an encoder can be tuned on.
        names: folder's name to name in answers, e.g. `{"0": none, "1": doubtful}`; a folder that is not listed keeps
            its own name without its digits.
        topic: of the answer.
        patient: a regular expression over the file's name whose first group is the patient; "" if names do not tell.
        kind: what the images show.
        skip: folders to leave out.

    Yields:
        `(sample, split or None, path)`. Labels: `grade`, the digits in front of the folder's name or, where a folder
        has none, its place among all. Attributes: `class` (the folder's name), `class_name` and `grade`.

    Raises:
        DataError: no folder of images is there.
        RecipeError: `patient` is no regular expression with a group.
    """
    root = source.folder()
    top = _below(root, folder)
    found = _parts(top, skip or (), source)
    folders = sorted({place.name for _, place in found})
    if not folders:
        there = ", ".join(sorted(p.name for p in top.iterdir())[:8])
        raise DataError(
            "no class folders in the data root", where="option folder", found=clean(there, 200) or "nothing",
            expected="a folder of images for each class, perhaps below train, val and test",
            remedy="set `folder` to the folder that holds them, e.g. MedicalExpert-I",
        )  # fmt: skip
    options = _Options(
        question=question, answer=answer, topic=topic, patient=_pattern(patient), kind=kind,
        classes=_classes(folders, names or {}),
    )  # fmt: skip
    for split, place in found:
        for path in _files(place, root, source):
            name = path.relative_to(root).as_posix()
            try:
                yield _sample(name, options.classes[place.name], options), split, name
            except DataError as error:
                source.reject_error(clean(name), 0, clean(name), error)


def _below(root: Path, folder: str) -> Path:
    if folder.startswith("/") or ".." in PurePosixPath(folder).parts or not (root / folder).is_dir():
        raise DataError(
            "`folder` is no folder below the data root", where="option folder", found=repr(folder),
            expected=", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())[:8]) or "the root has no folders",
        )  # fmt: skip
    return root / folder


def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        made = re.compile(text)
    except re.error:
        made = re.compile("")
    if text and made.groups < 1:
        raise RecipeError(
            "`patient` is no regular expression with a group", where="option patient", found=repr(text),
            expected="e.g. ^([0-9]+)[LR]",
        )  # fmt: skip
    return made if text else None


def _parts(top: Path, skip: Sequence[str], source: Source) -> list[tuple[str | None, Path]]:
    """Class folders with their official split, in the order of their names."""
    inside = _folders(top, skip)
    splits = [place for place in inside if place.name.lower() in SPLITS]
    found: list[tuple[str | None, Path]] = []
    if splits:
        found += [(SPLITS[split.name.lower()], place) for split in splits for place in _folders(split, skip)]
        strange, why = (
            [p for p in inside if p not in splits],
            "a folder beside train, val and test that is none",
        )
    else:
        held = [place for place in inside if any(p.is_file() for p in place.iterdir())]
        found += [(None, place) for place in held]
        strange = [p for p in inside if p not in held] if held else []
        why = "a folder beside class folders without a file"
    for place in strange:
        remedy = "name it in the option `skip` if that is right"
        source.reject(clean(place.name), 0, "", "", why, clean(place.name), remedy)
    return found


def _folders(place: Path, skip: Sequence[str]) -> list[Path]:
    return sorted(
        p for p in place.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in skip
    )


def _classes(folders: Sequence[str], names: Mapping[str, str]) -> dict[str, _Class]:
    """Every class by its folder's name."""
    unknown = [name for name in names if name not in folders]
    if unknown:
        raise RecipeError(
            f"`names` has no such class folder: {', '.join(unknown)}", where="option names",
            expected=", ".join(folders),
        )  # fmt: skip
    parts = {folder: CLASS.fullmatch(folder) for folder in folders}
    graded = {folder: found[1] for folder, found in parts.items() if found and found[1]}
    whole = len(graded) == len(folders)
    return {
        folder: _Class(
            folder,
            int(graded[folder]) if whole else place,
            names.get(folder) or (parts[folder] or [""] * 3)[2] or folder,
        )
        for place, folder in enumerate(folders)
    }


def _files(place: Path, root: Path, source: Source) -> Iterator[Path]:
    """What stands in a class folder; folders in it are refused."""
    for path in sorted(place.iterdir()):
        if path.name.startswith(".") or path.name.lower() in LITTER:
            continue
        if path.is_dir():
            name = clean(path.relative_to(root).as_posix())
            source.reject(
                name, 0, "", "", "a folder in a class folder", "", "put its images into the class folder"
            )
            continue
        yield path


def _sample(name: str, held: _Class, options: _Options) -> Sample:
    """One image as a question."""
    if clean(name, len(name) + 1) != name:
        raise RecordError(
            "the file's name holds bytes that are not UTF-8", field="image", remedy="rename the file"
        )
    patient = stand_in(name)
    if options.patient is not None:
        told = options.patient.search(PurePosixPath(name).name)
        patient = (told[1] or "") if told else ""
        if not patient:
            raise RecordError(
                "the file's name does not tell the patient", field="patient",
                remedy="mend the option `patient`, or leave it out",
            )  # fmt: skip
    return Sample(
        id=name,
        patient=patient,
        images=(ImageRef(path=name, kind=options.kind),),
        messages=(
            Message(role="user", parts=(0, options.asked)),
            Message(
                role="assistant", parts=(options.answer.replace("{name}", held.name),), topic=options.topic
            ),
        ),
        labels={"grade": held.grade},
        attributes={"class": held.folder, "class_name": held.name, "grade": str(held.grade)},
    )


READER = Reader(read=class_folders, official="folders named train, val and test, where there are any")
