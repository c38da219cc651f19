"""Raw files to a checked data set: every record read, every image decoded once, whole patients in each split.

What cannot be used is written to `rejected.jsonl` with its place, its reason and what to do; nothing is
repaired in silence. The folder then holds `{split}.parquet`, `audit.json`, `rejected.jsonl` and
`dataset.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import plugins
from ..errors import DataError, ImageError
from ..images.files import ROOTS
from ..images.formats import MAX_PIXELS
from ..types import Preference, Sample
from .audit import Audit, answers, audit
from .checks import check_images, check_turns
from .source import Reader, Record, RecordError, Source
from .split import split
from .store import Kind, Preferences, Samples, write_preferences, write_samples

MAX_BAD = 0.05
COMMONEST = 3
PICTURES = "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A prepared data set on disk.

    Args:
        folder: where it is.
        root: the data root that image paths are relative to.
        kind: `samples` or `preferences`.
        counts: records per split.
        rejected: records that were refused.
        audits: the audit of the own splits, and of the official ones where there are any; empty when loaded.
        template: how retrieved reports stand in prompts (`settings.Template` as plain values); None without retrieval.
        official: the authors' split of each record, as far as it is known; empty when loaded.
    """

    folder: Path
    root: Path
    kind: Kind
    counts: Mapping[str, int]
    rejected: int
    audits: tuple[Audit, ...] = ()
    template: Mapping[str, str] | None = None
    official: Mapping[str, str | None] = field(default_factory=dict)

    def samples(self, split: str) -> Samples:
        """The samples of a split, lazily.

        Raises:
            DataError: no such split, or the data set holds preferences.
        """
        return Samples(self._path(split))

    def preferences(self, split: str) -> Preferences:
        """The preferences of a split, lazily; raises as `samples`."""
        return Preferences(self._path(split))

    def records(self, split: str) -> Sequence[Sample | Preference]:
        """What a split holds, of either kind, lazily; raises as `samples`."""
        return self.samples(split) if self.kind == "samples" else self.preferences(split)

    def _path(self, split: str) -> Path:
        if split not in self.counts:
            raise DataError(f"no split '{split}'", found=repr(split), expected=", ".join(self.counts))
        return self.folder / f"{split}.parquet"


@dataclass(slots=True)
class Seen:
    """What has been accepted so far: records, their official splits, hashes of images, and which kind records are."""

    records: list[Record] = field(default_factory=list)
    official: dict[str, str | None] = field(default_factory=dict)
    hashes: dict[tuple[str, str], str | ImageError] = field(default_factory=dict)
    kind: str = ""


def prepare(
    reader: str,
    options: Mapping[str, Any],
    *,
    root: Path | None,
    out: Path,
    seed: int,
    shares: Mapping[str, float],
    by: str = "patient",
    strict: bool = False,
    max_bad: float = MAX_BAD,
    max_pixels: int = MAX_PIXELS,
) -> Prepared:
    """Read, check, split and write a data set.

    Args:
        reader: name of a reader, or `module:object`.
        options: the reader's options as the recipe gives them.
        root: folder of the raw files; None for a reader that generates, whose pictures go to `out/images`.
        out: folder to write to; made if absent.
        seed: decides the splits, and all that a generating reader draws.
        shares: split name to share.
        by: `patient`, `image` or `official`.
        strict: raise at the first bad record.
        max_bad: the largest share of bad records that is still a data set.
        max_pixels: largest width x height of an image.

    Returns:
        The data set, with its audits.

    Raises:
        DataError: no good record, too many bad ones, samples mixed with preferences, or (strict) a bad one.
        RecipeError: the options, the shares or `by` are not right.
    """
    plugin, bound = open_reader(reader, root), plugins.bind("readers", reader, options)
    home = root if plugin.needs_root and not plugin.unpacks else None  # None: pictures are in the data set
    out.mkdir(parents=True, exist_ok=True)
    source, seen = Source(root=root, seed=seed, images=out / PICTURES, strict=strict), Seen()
    try:
        gather(plugin, bound, source, seen, home or source.images, max_pixels)
        check_share(len(seen.records), source.rejected, max_bad)
    finally:
        write_lines(out / "rejected.jsonl", source.rejected)
    about = {"reader": reader, "options": used(plugin, bound), "official": plugin.official}
    return finish(seen, out, home, source.rejected, about, shares=shares, by=by, seed=seed)


def finish(
    seen: Seen,
    out: Path,
    home: Path | None,
    rejected: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    *,
    shares: Mapping[str, float],
    by: str,
    seed: int,
) -> Prepared:
    """Deal what was gathered to the splits, and write all files but `rejected.jsonl`.

    Args:
        seen: the good records.
        out: the data set's folder.
        home: the root of the images; None: the folder `images` of the data set.
        rejected: what was set aside.
        about: what `dataset.json` says beside counts.
        shares: split name to share.
        by: `patient`, `image` or `official`.
        seed: decides the splits.
    """
    assigned = split(seen.records, shares, by, seed, seen.official)
    own = _by_split(seen.records, assigned, list(shares))
    audits = [audit(own, name="official" if by == "official" else "own")]
    if by != "official" and all(seen.official.values()):
        audits.append(audit(_by_split(seen.records, seen.official), name="official"))
    counts = {name: _write(out / f"{name}.parquet", records) for name, records in own.items()}
    _write_json(out / "audit.json", {a.name: a.to_dict() for a in audits})
    made = Prepared(
        folder=out, root=home or out / PICTURES, counts=counts, audits=tuple(audits),
        kind="samples" if seen.kind == "samples" else "preferences", rejected=len(rejected),
        official=seen.official,
    )  # fmt: skip
    told = {**about, "seed": seed, "by": by}
    _write_json(out / "dataset.json", told | _describe(made, home, seen.records, rejected))
    return made


def load(folder: Path) -> Prepared:
    """Open a data set that `prepare` wrote.

    Raises:
        DataError: there is none, or `dataset.json` is damaged.
    """
    try:
        about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        root = folder / about["root"] if about["generated"] else Path(about["root"])
        counts, rejected = about["counts"], about["rejected"]
        return Prepared(
            folder=folder, root=root, kind=about["kind"], counts=counts, rejected=rejected,
            template=about.get("template"),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "no prepared data set in this folder, or it is damaged",
            where=f"{folder.name}/dataset.json",
            found=type(error).__name__,
            remedy="run the `prepare` stage again",
        ) from error


def used(plugin: Reader, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as `dataset.json` names them: without those that came later and are not used."""
    return {key: value for key, value in options.items() if value or key not in plugin.later}


def open_reader(reader: str, root: Path | None) -> Reader:
    """A reader by name.

    Raises:
        DataError: it is no reader, it needs a root and has none, or the root belongs to a merged data set.
    """
    plugin = plugins.load("readers", reader)
    if not isinstance(plugin, Reader):
        raise DataError(f"'{reader}' is not a reader", found=type(plugin).__name__, expected="a Reader")
    if plugin.needs_root and root is None:
        raise DataError(
            f"the reader '{reader}' needs a data root", remedy="set `root` to the folder of the raw files"
        )
    if root is not None and (root / ROOTS).exists():
        raise DataError(
            "the data root belongs to a merged data set, whose images are elsewhere",
            found=ROOTS,
            remedy="take the folders of the raw files, or write the data set out with `data export --images`",
        )
    return plugin


def gather(
    plugin: Reader, options: Mapping[str, Any], source: Source, seen: Seen, root: Path, max_pixels: int
) -> None:
    """Run the reader and keep what passes every check."""
    ids: set[str] = set()
    for raw, official, origin in tqdm(
        plugin.read(source, **options), desc="prepare", unit=" records", disable=None, leave=False
    ):
        file, line = _origin(origin)
        _check_kind(raw, seen)
        try:
            if raw.id in ids:
                raise RecordError(
                    "duplicate id: an earlier record has it too",
                    field="id",
                    found=raw.id[:80],
                    remedy="give each record its own id (llava_json: `ids: place` names them by file)",
                )
            check_turns(raw)
            record = check_images(raw, root, seen.hashes, max_pixels)
        except DataError as error:
            source.reject_error(file, line, raw.id, error)
            continue
        ids.add(record.id)
        seen.records.append(record)
        seen.official[record.id] = official


def _origin(origin: str) -> tuple[str, int]:
    """`train.json:12` -> ("train.json", 12); a place without a line has line 0."""
    file, _, line = origin.rpartition(":")
    return (file, int(line)) if file and line.isascii() and line.isdigit() else (origin, 0)


def _check_kind(record: Record, seen: Seen) -> None:
    kind = "samples" if isinstance(record, Sample) else "preferences"
    seen.kind = seen.kind or kind
    if kind != seen.kind:
        raise DataError(
            "the files mix samples and preferences; a data set holds one kind",
            where=f"record {record.id}",
            found=f"{kind} after {seen.kind}",
            remedy="read them as two data sets, e.g. with the reader's option `file`",
        )


def check_share(good: int, rejected: Sequence[Mapping[str, Any]], max_bad: float) -> None:
    """Stop where the raw files as a whole are not what the reader takes them for.

    Raises:
        DataError: no good record, or more bad ones than `max_bad` allows.
    """
    total = good + len(rejected)
    if good and len(rejected) <= max_bad * total:
        return
    reasons = "; ".join(f"{n} x {reason}" for reason, n in list(_reasons(rejected).items())[:COMMONEST])
    if not good:
        raise DataError(
            "no record can be used",
            found=reasons or "no records at all",
            expected="at least one good record",
            remedy="see rejected.jsonl for each record's place; check the root, the reader and its options",
        )
    raise DataError(
        f"{len(rejected)} of {total} records are bad, more than max_bad = {max_bad:g} allows",
        found=reasons,
        expected=f"at most {max_bad:.0%}",
        remedy="mend what rejected.jsonl lists, or raise `max_bad` to go on without these records",
    )


def _reasons(rejected: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    return dict(Counter(str(row["reason"]) for row in rejected).most_common())


def _by_split(
    records: Iterable[Record], assigned: Mapping[str, str | None], names: Sequence[str] = ()
) -> dict[str, list[Record]]:
    """Records by split, splits in the order of the recipe, records in that of the files."""
    found: dict[str, list[Record]] = {name: [] for name in names}
    for record in records:
        found.setdefault(assigned[record.id] or "", []).append(record)
    return {name: held for name, held in found.items() if held}


def _describe(
    made: Prepared, root: Path | None, records: Iterable[Record], rejected: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """What `dataset.json` says of the result; a generated data set's root is relative to its folder."""
    return {
        "kind": made.kind,
        "root": PICTURES if root is None else str(root),
        "generated": root is None,
        "counts": made.counts,
        "rejected": made.rejected,
        "reasons": _reasons(rejected),
        "answers": answers(records),
    }


def _write(path: Path, records: Sequence[Record]) -> int:
    samples = [r for r in records if isinstance(r, Sample)]
    if samples:
        return write_samples(path, samples)
    return write_preferences(path, [r for r in records if isinstance(r, Preference)])


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
