"""What is there, as text: recipes, plug-ins, and the results of runs as tables or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from .. import plugins, runs
from ..errors import RunError
from . import how

ROW = ("model", "image", "metric", "value", "low", "high", "n", "patients")
PAIR = ("question", "metric", "a", "b", "difference", "low", "high", "p", "n", "patients")
MORE = ("chance",)
SCORES = "scores.json"


def recipes(folder: Path) -> list[tuple[Path, str]]:
    """Recipe files below a folder, each with its first comment line."""
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        about = next((line.lstrip("# ").rstrip() for line in lines if line.startswith("#")), "")
        found.append((path, about))
    return found


def plugins_by_kind() -> dict[str, list[str]]:
    """Plug-in names by kind; no plug-in is imported."""
    return {kind: plugins.names(cast(plugins.Kind, kind)) for kind in plugins.PLACES}


def stages_below(run: Path) -> list[Path]:
    """A stage's folder itself, or the finished stages of a recipe's folder, oldest first.

    Raises:
        RunError: neither.
    """
    if (run / runs.MANIFEST).is_file():
        return [run]
    sealed = [p for p in run.glob(f"*/{runs.MANIFEST}") if not p.parent.name.startswith(".")]
    found = [p.parent for p in sorted(sealed, key=lambda p: (p.stat().st_mtime, p))]
    if not found:
        raise RunError(
            "no finished stage here", where=str(run), expected="runs/RECIPE or runs/RECIPE/STAGE",
            remedy="`sightline run` makes one; look at the spelling of the folder",
        )  # fmt: skip
    return found


def shown(run: Path, *, as_json: bool, paired: bool, made_by: bool = False) -> str:
    """A run for a reader: scores of an evaluation, facts of another stage, stages of a recipe.

    Args:
        run: a stage's folder or a recipe's.
        as_json: JSON instead of a table.
        paired: the comparisons of an evaluation instead of its scores.
        made_by: what made the numbers of an evaluation instead of them.

    Raises:
        RunError: no finished stage there, or one that has no comparisons or numbers to tell of.
    """
    if made_by:
        result = how.read(run)
        return _json(result) if as_json else how.whole(result)
    if not (run / runs.MANIFEST).is_file():
        return _recipe(run, as_json=as_json)
    if (run / SCORES).is_file():
        return _scores(run, as_json=as_json, paired=paired)
    if paired:
        raise RunError(
            "this stage compares nothing", where=str(run), expected="the folder of an evaluate stage"
        )
    manifest = runs.read_json(run / runs.MANIFEST)
    return _json(manifest) if as_json else _facts(manifest, _told(run))


def _scores(run: Path, *, as_json: bool, paired: bool) -> str:
    """Scores or comparisons; a measure's value by chance stands beside it where it is known."""
    rows = runs.read_json(run / SCORES)["paired" if paired else "rows"]
    if paired and not rows:
        raise RunError(
            "this stage compares nothing", where=str(run), found="scores without comparisons",
            expected="an evaluate stage with two models or two kinds of images", remedy="leave --paired out",
        )  # fmt: skip
    columns = PAIR if paired else (*ROW, *(c for c in MORE if any(c in row for row in rows)))
    kept = [{c: row.get(c) if c in MORE else row[c] for c in columns} for row in rows]
    if as_json:
        return _json(kept)
    told = how.brief(how.read(run)) if not paired and (run / how.RESULT).is_file() else []
    return "\n".join([table(columns, kept), *([""] if told else []), *told])


def _told(run: Path) -> list[str]:
    """What a stage's own files say: records by split, pairs by kind, reports of an index, warnings of the audit."""
    files = ("dataset.json", "index.json", "audit.json")
    data, index, audits = (runs.read_json(run / f) if (run / f).is_file() else {} for f in files)
    lines = []
    if data:
        lines.append(f"holds    {data['kind']}: {_counted(data['counts'])}")
    if data.get("kinds"):
        lines.append(f"kinds    {_counted(data['kinds'])}")
    if data.get("template"):
        lines.append(f"prompt   reports in the words of '{data['template']['name']}'")
    for split, counts in _kept(run / "retrieved.jsonl").items():
        none = f"; none found for {counts.count(0)}" if 0 in counts else ""
        lines.append(f"shown    {split}: {fmean(counts):.2f} reports on average{none}")
    if index:
        lines.append(
            f"holds    {index['reports']} reports, {index['cards']} different ones in {index['groups']} groups;"
            f" {index['search']} search"
        )
    return [*lines, *(f"warning  {each['warning']}" for each in audits.values() if each["warning"])]


def _kept(path: Path) -> dict[str, list[int]]:
    """How many reports are shown for each sample, by split."""
    found: dict[str, list[int]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.setdefault(row["split"], []).append(row["kept"])
    return found


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _facts(manifest: Mapping[str, Any], told: Sequence[str]) -> str:
    """The summary of a stage that has no scores."""
    lines = [f"{manifest.get('name')}: {manifest.get('stage')}, made in {manifest.get('seconds')} s"]
    lines.append(f"content  {manifest['content'][:16]}")
    lines += [f"reads    {name} {content[:16]}" for name, content in manifest.get("parents", {}).items()]
    lines += told
    versions = manifest.get("versions", {})
    lines.append("with     " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    lines += [f"{entry['bytes']:>12,}  {entry['path']}" for entry in _briefly(manifest["files"])]
    return "\n".join(lines)


def _briefly(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Files, with those of one sub-folder as one entry."""
    sums: dict[str, dict[str, Any]] = {}
    for entry in entries:
        top, _, below = entry["path"].partition("/")
        name = f"{top}/" if below else top
        known = sums.setdefault(name, {"path": name, "bytes": 0})
        known["bytes"] += entry["bytes"]
    return list(sums.values())


def _recipe(run: Path, *, as_json: bool) -> str:
    """The stages of a recipe's folder: finished ones and interrupted ones."""
    work = sorted(p for p in run.glob(".*.work") if p.is_dir())
    found = [] if work and not list(run.glob(f"*/{runs.MANIFEST}")) else stages_below(run)
    rows = []
    for folder in found:
        manifest = runs.read_json(folder / runs.MANIFEST)
        content, seconds = manifest["content"][:16], manifest.get("seconds")
        row = {"name": folder.name, "stage": manifest.get("stage"), "state": "finished", "seconds": seconds}
        rows.append({**row, "content": content})
    for folder in work:
        name = folder.name.removeprefix(".").removesuffix(".work")
        rows.append({"name": name, "stage": "", "state": "interrupted", "seconds": None, "content": ""})
    return _json(rows) if as_json else table(("name", "stage", "state", "seconds", "content"), rows)


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned text; numbers to the right."""
    cells = [[_cell(row[c]) for c in columns] for row in rows]
    widths = [max([len(c), *(len(line[i]) for line in cells)]) for i, c in enumerate(columns)]
    right = [all(isinstance(row[c], (int, float, type(None))) for row in rows) for c in columns]
    lines = [list(columns), *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
