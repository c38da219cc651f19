"""`sightline verify`: is everything in a run as it was when it was made, and do its scores follow from its answers?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__, runs
from ..errors import DataError, RunError, SightlineError

if TYPE_CHECKING:
    from ..stages.compared import Fault

SCORES, PREDICTIONS = "scores.json", "predictions"
MOST_SHOWN = 20
ROUNDING = 1e-9


@dataclass(kw_only=True)
class Checked:
    """What was found in one stage's folder.

    Args:
        folder: the stage's.
        files: how many files were compared with their hashes.
        numbers: how many rows of scores were computed again; None where there are none to compute.
        faults: what is not as it was.
        notes: what a reader should know beside.
    """

    folder: Path
    files: int = 0
    numbers: int | None = None
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The result as lines: one for the folder, one for each note."""
        wrong = f"{len(self.faults)} fault(s)" if self.faults else "as its manifest says"
        again = "" if self.numbers is None else f"; {self.numbers} rows of scores computed again"
        lines = [f"{self.folder}: {self.files} files{again}: {wrong}"]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def verify(
    run: Annotated[Path, typer.Argument(help="a stage's folder, or a recipe's")],
    models: Annotated[bool, typer.Option("--models", help="also run metrics that need a model")] = False,
    tolerance: Annotated[
        float, typer.Option(min=0, help="largest relative difference of a score that counts as none")
    ] = 0.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="print JSON and nothing else on standard output")
    ] = False,
) -> None:
    """Compare a run with its hashes, and compute its scores again from the answers that it keeps.

    Ends with 1 where anything differs, and says which file and which row.
    """
    from .listing import stages_below

    checked: list[Checked] = []
    for folder in stages_below(run):
        checked.append(check(folder, models=models, tolerance=tolerance))
        if not as_json:
            print(checked[-1].text())
    wrong = [(each.folder, fault) for each in checked for fault in each.faults]
    if as_json:
        plain = [{**asdict(each), "folder": str(each.folder), "sound": not each.faults} for each in checked]
        print(json.dumps(plain, indent=1, ensure_ascii=False))
    if wrong:
        shown = [f"{folder}: {fault.text()}" for folder, fault in wrong[:MOST_SHOWN]]
        more = (
            [f"... and {len(wrong) - MOST_SHOWN} more; --json lists all"] if len(wrong) > MOST_SHOWN else []
        )
        raise RunError(
            f"{len(wrong)} thing(s) in this run are not as they were when it was made",
            where="\n            ".join([*shown, *more]),
            remedy="run the recipe again: damaged stages are made anew. Scores also differ where the code that scores "
            f"has changed since, and in the last digits on another machine: --tolerance {ROUNDING:g} lets these pass",
        )  # fmt: skip


def check(folder: Path, *, models: bool = False, tolerance: float = 0.0) -> Checked:
    """Everything that can be said of one finished stage.

    Args:
        folder: the stage's.
        models: also run metrics that need a model.
        tolerance: largest relative difference of a score that counts as none.
    """
    found = Checked(folder=folder)
    found.faults += _hashes(folder)
    try:
        manifest = runs.read_json(folder / runs.MANIFEST)
        found.files = len(manifest["files"])
    except (RunError, TypeError, KeyError):
        return found
    parents = {name: _place(folder, name) for name in manifest.get("parents", {})}
    found.faults += _chain(manifest, parents, found)
    found.faults += _key(folder, manifest)
    if manifest.get("stage") == "evaluate" and (folder / SCORES).is_file():
        _recount(folder, parents, found, models=models, tolerance=tolerance)
    return found


def _hashes(folder: Path) -> Iterator[Fault]:
    """Files that are not as the manifest says."""
    from ..stages.compared import Fault

    for text in runs.faults(folder):
        file, _, what = text.partition(": ")
        found, _, expected = what.partition(", expected ")
        if what:
            yield Fault(
                file=file, found=found, expected=expected or "the file that was sealed", by="by its hash"
            )
        else:
            yield Fault(file=runs.MANIFEST, found=text)


def _place(folder: Path, parent: str) -> Path:
    """The folder of a stage that was read: beside this one, or where the recipe said."""
    beside = folder.parent / parent
    return beside if "/" not in parent and beside.is_dir() else Path(parent)


def _chain(manifest: Mapping[str, Any], parents: Mapping[str, Path], found: Checked) -> Iterator[Fault]:
    """Whether what the stage read is still what it read; only the data of an evaluation is hashed file by file."""
    from ..stages.compared import Fault

    data = manifest.get("section", {}).get("data")
    for name, place in parents.items():
        if not (place / runs.MANIFEST).is_file():
            found.notes.append(f"what it read as '{name}' is not here")
            continue
        now, then = runs.content(place), manifest["parents"][name]
        if now != then:
            yield Fault(
                file=f"{name}/{runs.MANIFEST}", found=f"content {now[:16]}", expected=then[:16],
                by="what this stage read",
            )  # fmt: skip
        for fault in _hashes(place) if name == data else ():
            yield replace(fault, file=f"{name}/{fault.file}")


def _key(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Fault]:
    """Whether the settings in the manifest are those that its key was made of."""
    from ..stages import HERE, version_of
    from ..stages.compared import Fault, values

    section, stage = manifest.get("section"), str(manifest.get("stage"))
    if not isinstance(section, dict) or not (HERE / f"{stage}.py").is_file():
        return
    package = str(manifest.get("versions", {}).get("sightline", __version__))
    seed, parents = int(manifest.get("seed", 0)), manifest.get("parents", {})
    if any(
        runs.key_of(section, seed, number, parents, package) == manifest.get("key")
        for number in range(1, version_of(stage) + 1)
    ):
        return
    yield Fault(
        file=runs.MANIFEST, place="key", found="settings that it was not made of", expected="those of the run"
    )
    kept = runs.read_json(folder / "recipe.json") if (folder / "recipe.json").is_file() else {}
    now = {"section": section, "seed": manifest.get("seed")}
    for fault in values(runs.MANIFEST, "", now, kept, 0.0) if kept else ():
        yield Fault(
            file=fault.file, place=fault.place, found=fault.found, expected=fault.expected, by="as recipe.json has it"
        )  # fmt: skip


def _recount(
    folder: Path, parents: Mapping[str, Path], found: Checked, *, models: bool, tolerance: float
) -> None:
    """The scores of an evaluation, from its answers."""
    from ..stages.compared import Fault
    from ..stages.recount import recount

    if not (folder / PREDICTIONS).is_dir():
        found.notes.append("it keeps no answers: its scores are not computed again")
        return
    try:
        made = recount(folder, parents, models=models, tolerance=tolerance)
    except (DataError, RunError) as error:
        found.faults.append(_unread(error))
        return
    except SightlineError as error:
        found.faults.append(
            Fault(file=SCORES, found=error.what, expected="scores that can be computed again")
        )
        return
    found.numbers = made.numbers
    found.faults += made.faults
    found.notes += made.notes


def _unread(error: SightlineError) -> Fault:
    """A file that could not be read, as a fault."""
    from ..stages.compared import Fault

    return Fault(file=error.where or SCORES, found=error.what, expected=error.expected)
