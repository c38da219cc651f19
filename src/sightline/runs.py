"""Stage folders that a crash cannot spoil: lock, staging, SHA-256 manifest last, atomic rename, hash chain.

A stage works in `runs/RECIPE/.STAGE.work` and is renamed to `runs/RECIPE/STAGE` when its manifest stands.
The stage's key is a hash of its section, its parents' contents and its code's version; while the key of a
finished folder matches, the stage is skipped. Machine and time are recorded beside the content hash, never in
it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__
from .errors import RunError

MANIFEST = "manifest.json"
PART = ".part"  # what a file is called while `write_json` writes it
VOLATILE = ("events.jsonl", "tensorboard", "report.html", "log.txt", "key.json")
SCRATCH = "checkpoints"  # in a work folder until its result stands; no part of the result
VERSIONED = ("torch", "transformers", "peft", "accelerate", "numpy", "pillow", "pyarrow")


def canonical(value: Any) -> str:
    """JSON with one spelling for one value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: str) -> str:
    """SHA-256 of texts, with their borders kept apart."""
    mixed = hashlib.sha256()
    for part in parts:
        data = part.encode()
        mixed.update(len(data).to_bytes(8, "little") + data)
    return mixed.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half."""
    part = path.with_name(f".{path.name}{PART}")
    with part.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(path)


def read_json(path: Path) -> Any:
    """Read JSON written by `write_json`.

    Raises:
        RunError: missing or damaged file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError("a file of the run is missing", where=str(path)) from None
    except (ValueError, OSError) as error:
        raise RunError("a file of the run is damaged", where=str(path), found=type(error).__name__) from None


def files_below(folder: Path) -> list[Path]:
    """All regular files below a folder, sorted by relative path, without its manifest and its scratch."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return [p for name, p in sorted(found.items()) if name != MANIFEST and not name.startswith(f"{SCRATCH}/")]


def seal(folder: Path, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fsync every file of a folder and write its manifest last.

    Returns:
        The manifest: `files` (path, bytes, sha256), `content` (one hash of the results) and `facts`.
    """
    for part in [p for p in folder.rglob(f".*{PART}") if p.is_file()]:
        part.unlink()  # a killed `write_json` left it, of the manifest itself perhaps
    entries: list[dict[str, Any]] = []
    for path in files_below(folder):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        relative = path.relative_to(folder).as_posix()
        entries.append({"path": relative, "bytes": path.stat().st_size, "sha256": hash_file(path)})
    manifest = {**(facts or {}), "content": _content(entries), "files": entries}
    write_json(folder / MANIFEST, manifest)
    sync_folder(folder)
    return manifest


def _content(entries: Sequence[Mapping[str, Any]]) -> str:
    """One hash of the results among a manifest's entries."""
    return digest(*(f"{e['path']}:{e['sha256']}" for e in entries if e["path"].split("/")[0] not in VOLATILE))


def sync_folder(folder: Path) -> None:
    """Fsync a folder and those below it, so that names survive a power cut too."""
    for place in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def faults(folder: Path) -> list[str]:
    """What is wrong with a sealed folder; an empty list when every file is as the manifest says."""
    try:
        manifest = read_json(folder / MANIFEST)
    except RunError as error:
        return [error.what]
    if not _is_manifest(manifest):
        return [f"{MANIFEST}: not a manifest"]
    wrong = []
    for entry in manifest["files"]:
        path = folder / entry["path"]
        if not path.is_file():
            wrong.append(f"{entry['path']}: missing")
        elif path.stat().st_size != entry["bytes"]:
            wrong.append(f"{entry['path']}: {path.stat().st_size} bytes, expected {entry['bytes']}")
        elif hash_file(path) != entry["sha256"]:
            wrong.append(f"{entry['path']}: content changed")
    return wrong


def _is_manifest(value: Any) -> bool:
    """Whether a manifest has its form, and its entries are those that its content hash was made of."""
    entries = value.get("files") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        return False
    kinds = {"path": str, "bytes": int, "sha256": str}
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), t) for k, t in kinds.items()):
            return False
    return bool(value.get("content") == _content(entries))


def content(folder: Path) -> str:
    """The content hash of a finished stage.

    Raises:
        RunError: the folder is not a finished stage.
    """
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or "content" not in manifest:
        raise RunError("the manifest holds no content hash", where=str(folder / MANIFEST))
    return str(manifest["content"])


@dataclass
class Run:
    """One stage at work.

    Args:
        name: the stage's name.
        folder: where the result will stand.
        work: where it is being made.
        key: hash of all that decides the result.
        parents: finished folders of the stages that it reads.
        facts: what the manifest will say beside hashes.
        resumed: whether `work` holds an interrupted run of the same key.
        leader: the work folder of the process that this one helps to train; None in one that makes the result.
    """

    name: str
    folder: Path
    work: Path
    key: str
    parents: Mapping[str, Path]
    facts: dict[str, Any] = field(default_factory=dict)
    resumed: bool = False
    leader: Path | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def scratch(self) -> Path:
        """Where checkpoints stand until the result does; one folder for all processes."""
        return (self.leader or self.work) / SCRATCH

    def event(self, kind: str, **values: Any) -> None:
        """Append one line to `events.jsonl`: the time, the kind, and values without patient data."""
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **values}, ensure_ascii=False)
        with (self.work / "events.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def set_aside(self, records: Sequence[Mapping[str, Any]], kept: int, what: str) -> None:
        """Write what cannot be used to `set_aside.json`, each with its reason, and say how many there are."""
        write_json(self.work / "set_aside.json", records)
        if records:
            of = kept + len(records)
            print(f"  {len(records)} of {of} {what} do not fit and are set aside (set_aside.json)")


def key_of(
    section: Mapping[str, Any],
    seed: int,
    version: int,
    parents: Mapping[str, str],
    package: str = __version__,
) -> str:
    """What decides whether a stage is up to date: its section, seed, code and its parents' contents."""
    code = f"{package.rpartition('.')[0]}/{version}"
    return digest(canonical(section), str(seed), code, canonical(dict(parents)))


def is_done(folder: Path, key: str) -> bool:
    """Whether a finished stage has this key and every file as its manifest says."""
    try:
        manifest = read_json(folder / MANIFEST)
    except RunError:
        return False
    return isinstance(manifest, dict) and manifest.get("key") == key and not faults(folder)


_held: set[int] = set()


def _leave_locks() -> None:
    """Close a forked child's copies of its parent's locks: a data worker may outlive a killed run."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_leave_locks)


def held() -> tuple[int, ...]:
    """Handles of the locks that this process holds, for processes that must hold them as long as they live."""
    return tuple(sorted(_held))


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a stage folder for this process; the operating system frees it when the process dies.

    Raises:
        RunError: another process holds it; names its pid, host and start.
    """
    place = folder.parent / f".{folder.name}.lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(handle, 1000).decode(errors="replace").strip()
        os.close(handle)
        raise RunError(
            "another run is using this stage folder",
            where=str(folder),
            found=holder or "an unnamed process",
            expected="one run at a time",
            remedy="wait for it, or choose another folder with --runs",
        ) from None
    os.ftruncate(handle, 0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(handle, f"pid {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
    _held.add(handle)
    try:
        yield
    finally:
        if handle in _held:  # not in a forked child, which closed its copy
            _held.remove(handle)
            os.ftruncate(handle, 0)
            os.close(handle)


@contextmanager
def start(
    folder: Path, *, section: Mapping[str, Any], seed: int, version: int, parents: Mapping[str, Path]
) -> Iterator[Run]:
    """Lock, stage and commit: what the block writes into `run.work` becomes `folder`, or nothing does.

    An exception leaves the work folder where it is; the next start with the same key resumes in it, one with
    another key throws it away.

    Args:
        folder: the stage's folder, `runs/RECIPE/STAGE`.
        section: the resolved recipe section.
        seed: the recipe's seed.
        version: the version of the stage's code.
        parents: finished folders that the stage reads.
    """
    chain = {name: content(path) for name, path in parents.items()}
    key = key_of(section, seed, version, chain)
    with lock(folder):
        work = folder.parent / f".{folder.name}.work"
        marker = work / "key.json"
        same = marker.is_file() and read_json(marker).get("key") == key
        if work.exists() and not same:
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        write_json(marker, {"key": key})
        facts = {
            "stage": section.get("stage"), "name": folder.name, "key": key, "section": section,
            "seed": seed, "parents": chain, "machine": machine(), "versions": versions(),
        }  # fmt: skip
        run = Run(
            name=folder.name, folder=folder, work=work, key=key, parents=parents, facts=facts, resumed=same
        )
        run.event("resumed" if same else "started")
        yield run
        _commit(run)


def _commit(run: Run) -> None:
    """Seal the work folder and put it in the place of an older result, by renames alone."""
    run.event("finished", seconds=round(time.monotonic() - run.started, 1))
    run.facts["seconds"] = round(time.monotonic() - run.started, 1)
    write_json(run.work / "recipe.json", {"section": run.facts["section"], "seed": run.facts["seed"]})
    seal(run.work, run.facts)
    old = run.folder.parent / f".{run.folder.name}.old"
    if old.exists():
        shutil.rmtree(old)
    if run.folder.exists():
        run.folder.rename(old)
    run.work.rename(run.folder)
    sync_parent(run.folder)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(run.folder / SCRATCH, ignore_errors=True)


def sync_parent(path: Path) -> None:
    """Fsync the folder that holds `path`, so that a rename survives a power cut."""
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def recover(folder: Path) -> None:
    """Finish a commit that was cut between its two renames: put the sealed work, or the old result, back."""
    work, old = (folder.parent / f".{folder.name}.{end}" for end in ("work", "old"))
    if (work / MANIFEST).is_file() and not faults(work):
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        work.rename(folder)
    elif old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    if (folder / MANIFEST).is_file():
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)


def newest_valid(folder: Path, prefix: str = "checkpoint-") -> tuple[Path | None, list[str]]:
    """The sealed sub-folder with the highest number that verifies, and notes about those that did not.

    Damaged ones are renamed `damaged-...`, never deleted, so that a person can look at them.
    """
    notes: list[str] = []
    for path in sorted(numbered(folder, prefix), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        wrong = faults(path)
        if not wrong:
            return path, notes
        aside = path.with_name(f"damaged-{path.name}-{len(list(folder.glob('damaged-*')))}")
        path.rename(aside)
        notes.append(
            f"{path.name} is damaged ({wrong[0]}); kept as {aside.name}, falling back to the one before"
        )
    return None, notes


def numbered(folder: Path, prefix: str = "checkpoint-") -> Iterable[Path]:
    """Sub-folders named PREFIX and a number."""
    return [p for p in folder.glob(f"{prefix}*") if p.is_dir() and p.name[len(prefix) :].isdigit()]


def machine() -> dict[str, str]:
    """What the run ran on, without names of people or hosts."""
    return {"python": platform.python_version(), "system": platform.system(), "cores": str(os.cpu_count())}


def versions() -> dict[str, str]:
    """Versions of the packages that decide results."""
    found = {"sightline": __version__, "python": sys.version.split()[0]}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
