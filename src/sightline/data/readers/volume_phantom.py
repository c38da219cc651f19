"""Reader of generated heads as NIfTI files: nothing is read, every truth is known, left and right are marked.

A `patient` is a family of two people, so that a comparison never reaches into another split. Every family gives

    f001-spot      user <T1 of b> Is the bright spot on the left?     assistant Yes   (topic spot_left)
    f001-compare   user <T1 of a> a's sex, as UMBRELLA shows a reference;  assistant takes note of it
                   user <T1 of b> the sex of b?                       assistant Classification: Female. (topic sex_same)
    f001-pulse     user <fMRI of b> Does the bright spot pulse?       assistant No    (topic pulse)

The files are stored in different orientations with affines that say so: whoever ignores the affine learns no side.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import RecipeError
from ...images.brain import Brain, draw
from ...images.formats import nifti
from ...images.volume import turn
from ...types import ImageRef, Message, Sample
from ..source import Read, Reader, Source
from .phantom import generator

STORED = ("RAS", "LAS", "LPS", "PIR", "SLA")
SEXES = ("male", "female")
SIDES = ("left", "right")


def volume_phantom(
    source: Source, *, patients: int = 48, size: int = 24, times: int = 8, tasks: str = "spot,compare,pulse"
) -> Iterator[Read]:
    """Draw families and write their volumes below `source.images`.

    A volume depends on the seed, the family and its options only: asking for more families changes none.

    Args:
        source: seed, and the folder for the volumes.
        patients: families of two.
        size: edge of a volume in voxels of 4 mm.
        times: points of time of an fMRI.
        tasks: which samples are made: any of `spot`, `compare` and `pulse`, with commas.

    Yields:
        One sample per family and task, without an official split.

    Raises:
        RecipeError: an option out of range.
    """
    asked = [word.strip() for word in tasks.split(",") if word.strip()]
    if not 1 <= patients <= 999 or not 8 <= size <= 256 or not 2 <= times <= 1000:
        raise RecipeError(
            "an option of the reader 'volume_phantom' is out of range",
            found=f"patients {patients}, size {size}, times {times}",
            expected="patients 1 to 999, size 8 to 256, times 2 to 1000",
        )
    if not asked or not set(asked) <= set(MAKERS):
        raise RecipeError(
            "the reader 'volume_phantom' has no such task", found=tasks, expected=", ".join(MAKERS)
        )
    source.images.mkdir(parents=True, exist_ok=True)
    for number in range(1, patients + 1):
        family = f"f{number:03d}"
        people = {name: _person(source.seed, family, name) for name in "ab"}
        for task in asked:
            yield MAKERS[task](source, family, people, size, times), None, f"volume_phantom:{number}"


def _person(seed: int, family: str, name: str) -> Brain:
    rng = generator(seed, family, name)
    return Brain(
        side=SIDES[int(rng.integers(2))], sex=SEXES[int(rng.integers(2))], pulse=bool(rng.integers(2))
    )


def _file(source: Source, family: str, name: str, brain: Brain, size: int, times: int) -> ImageRef:
    """The volume of one person, written once."""
    kind = "fMRI" if times else "sMRI"
    path = source.images / f"{family}-{name}-{kind}.nii.gz"
    if not path.exists():
        rng = generator(source.seed, family, name, kind)
        stored = STORED[int(rng.integers(len(STORED)))]
        nifti.write(path, turn(draw(brain, rng, size=size, times=times), stored))
    return ImageRef(path=path.name, kind=kind, form="volume")


def _spot(source: Source, family: str, people: dict[str, Brain], size: int, times: int) -> Sample:
    b = people["b"]
    return Sample(
        id=f"{family}-spot",
        patient=family,
        images=(_file(source, family, "b", b, size, 0),),
        messages=(
            Message(role="user", parts=(0, "Is the bright spot on the left?")),
            Message(role="assistant", parts=("Yes" if b.side == "left" else "No",), topic="spot_left"),
        ),
        labels={"spot_left": int(b.side == "left")},
        attributes={"task": "spot", "sex": b.sex},
    )


def _compare(source: Source, family: str, people: dict[str, Brain], size: int, times: int) -> Sample:
    a, b = people["a"], people["b"]
    kind = "same" if a.sex == b.sex else "different"
    shown = tuple(_file(source, family, name, brain, size, 0) for name, brain in people.items())
    return Sample(
        id=f"{family}-compare",
        patient=family,
        images=shown,
        messages=(
            Message(role="user", parts=(0, f"This scan of a {a.sex} subject is the reference.")),
            Message(role="assistant", parts=(f"Understood, a {a.sex} reference scan.",)),
            Message(role="user", parts=(1, "Compare this scan with the reference and name the sex.")),
            Message(role="assistant", parts=(f"Classification: {b.sex.capitalize()}.",), topic=f"sex_{kind}"),
        ),
        labels={"male": int(b.sex == "male"), "same": int(kind == "same")},
        attributes={"task": "compare", "comparison": kind, "sex": b.sex},
    )


def _pulse(source: Source, family: str, people: dict[str, Brain], size: int, times: int) -> Sample:
    b = people["b"]
    return Sample(
        id=f"{family}-pulse",
        patient=family,
        images=(_file(source, family, "b", b, size, times),),
        messages=(
            Message(role="user", parts=(0, "Does the bright spot pulse?")),
            Message(role="assistant", parts=("Yes" if b.pulse else "No",), topic="pulse"),
        ),
        labels={"pulse": int(b.pulse)},
        attributes={"task": "pulse", "sex": b.sex},
    )


MAKERS = {"spot": _spot, "compare": _compare, "pulse": _pulse}

READER = Reader(read=volume_phantom, needs_root=False)
