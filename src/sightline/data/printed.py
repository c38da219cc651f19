"""Prints of a data set's images, taken once for each file and kept by its hash."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import images
from ..errors import ImageError
from ..images.prints import EDGE, Print, taken
from ..types import ImageRef

FOLDER = ".prints"
VERSION = 1  # raised whenever the same image would get another print
PART = 2000  # prints a file


class Prints:
    """Prints by SHA-256, in memory and, where a folder is given, on disk.

    Args:
        folder: where they are kept; made when the first ones are written. None: nowhere.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.known: dict[str, Print] = {}
        for path in sorted(folder.glob(f"v{VERSION}-*.npz")) if folder else ():
            self.known |= _read(path)

    def of(self, root: Path, wanted: Mapping[str, ImageRef]) -> dict[str, str]:
        """Take the prints that are missing; only these images are decoded.

        Args:
            root: the data root.
            wanted: SHA-256 -> an image with these bytes.

        Returns:
            SHA-256 -> why there is none, for images that cannot be read.
        """
        missing = [sha for sha in wanted if sha not in self.known]
        refused: dict[str, str] = {}
        fresh: dict[str, Print] = {}
        for sha in tqdm(missing, desc="prints", unit=" images", disable=None, leave=False):
            try:
                fresh[sha] = taken(images.picture(root, wanted[sha]))
            except ImageError as error:
                refused[sha] = error.what
            if len(fresh) == PART:
                self._keep(fresh)
                fresh = {}
        self._keep(fresh)
        return refused

    def _keep(self, fresh: Mapping[str, Print]) -> None:
        """Remember prints, and write them so that a reader sees the whole file or none."""
        self.known |= fresh
        if not self.folder or not fresh:
            return
        self.folder.mkdir(exist_ok=True)
        place = self.folder / f"v{VERSION}-{len(list(self.folder.glob('*.npz'))):05d}-{os.getpid()}.npz"
        part = place.with_suffix(".part")
        with part.open("wb") as stream:
            np.savez(
                stream,
                names=np.array(list(fresh), dtype="S64"),
                bits=np.array([p.bits for p in fresh.values()], dtype=np.uint64),
                thumbs=np.stack([p.thumb for p in fresh.values()]),
            )
        part.rename(place)


def _read(path: Path) -> dict[str, Print]:
    """The prints of a file; none of a damaged one, whose images are looked at again."""
    try:
        with np.load(path, allow_pickle=False) as held:
            names, bits, thumbs = (held[name] for name in ("names", "bits", "thumbs"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    if thumbs.shape != (len(names), EDGE, EDGE):
        return {}
    return {name.decode(): Print(int(b), t) for name, b, t in zip(names, bits, thumbs, strict=True)}


def distinct(refs: Iterable[ImageRef]) -> Iterator[tuple[str, ImageRef]]:
    """Images by the hash of their bytes, the first of each, those without one left out."""
    seen: set[str] = set()
    for ref in refs:
        if ref.sha256 and ref.sha256 not in seen:
            seen.add(ref.sha256)
            yield ref.sha256, ref
