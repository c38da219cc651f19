"""Unit vectors in files of FAISS, read through the memory map: what is searched need not fit into memory.

Exact files hold a flat index (Douze et al. 2024, arXiv 2401.08281), approximate ones inverted lists of which a
search reads the nearest few. Scores are inner products in float32, each within `error` of its true value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ..errors import DataError

SEED = 1234
ROUNDS = 10
POINTS = 64  # of a list, in the sample on which the lists' centres are found
PROBED = 8  # a search begins with one list in so many


@dataclass(frozen=True, slots=True)
class Vectors:
    """One opened file.

    Args:
        index: FAISS's.
        lists: how many inverted lists it has; 0 where search is exact.
    """

    index: Any
    lists: int

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def nearest(
        self, queries: np.ndarray, count: int, effort: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best `count` vectors of each query.

        Args:
            queries: unit vectors, float32 [q, width].
            count: at most the number of vectors.
            effort: 1, or how many times as many lists as usual are read.

        Returns:
            Scores [q, count], falling, and places [q, count]; where less was found, -inf and -1. Then [q] bounds:
            no vector that was looked at and left out has a greater score.
        """
        options: dict[str, Any] = {}
        if self.lists:
            probed = min(self.lists, max(1, effort * math.ceil(self.lists / PROBED)))
            options["params"] = _probing(probed)
        scores, places = self.index.search(queries, count, **options)  # [q, count] each
        scores[places < 0] = -np.inf
        full = places[:, -1] >= 0
        bound = np.where(full & (count < len(self)), scores[:, -1], -np.inf)
        return scores, places, bound

    def whole(self, effort: int) -> bool:
        """Whether a search of this effort looks at every vector."""
        return not self.lists or effort * math.ceil(self.lists / PROBED) >= self.lists

    def at(self, places: np.ndarray) -> np.ndarray:
        """The vectors at some places, float32 [n, width]."""
        return self.index.reconstruct_batch(places)


def error(width: int) -> float:
    """Most by which a float32 inner product of unit vectors is wrong, in whatever order it is summed."""
    return (width + 4) * float(np.finfo(np.float32).eps)


def write(path: Path, vectors: np.ndarray, *, approximate: bool) -> None:
    """Write vectors as one file; equal vectors give equal bytes.

    Args:
        path: the file.
        vectors: float32 [n, width].
        approximate: by inverted lists.
    """
    width = vectors.shape[1]
    index: Any = faiss.IndexFlatIP(width)
    if approximate:
        index = faiss.IndexIVFFlat(index, width, _lists(len(vectors)), faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.niter, index.cp.spherical = SEED, ROUNDS, True
        index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = POINTS, 1
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # centres would depend on how many threads found them
        try:
            index.train(vectors)
        finally:
            faiss.omp_set_num_threads(threads)
    index.add(vectors)
    if approximate:
        index.make_direct_map()
    faiss.write_index(index, str(path))


def read(path: Path) -> Vectors:
    """Open a file that `write` made; its pages are read when they are needed."""
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    return Vectors(index, int(getattr(index, "nlist", 0)))


def unit(vectors: np.ndarray, what: str) -> np.ndarray:
    """Vectors as float32 [n, width] in one piece, checked.

    Raises:
        DataError: a number that is none, or a vector whose length is not 1.
    """
    made = np.ascontiguousarray(vectors, dtype=np.float32)  # [n, width]
    lengths = np.sqrt(np.einsum("nw,nw->n", made, made, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))
    if len(wrong):
        raise DataError(
            f"{len(wrong)} of {len(made)} embeddings of {what} are not unit vectors",
            found=f"length {lengths[wrong[0]]:g} at place {wrong[0]}",
            expected="length 1",
            remedy="the encoder gives numbers that are none, or embeddings that are not normalised",
        )
    return made


def _probing(lists: int) -> Any:
    """FAISS's word for how many inverted lists a search reads."""
    made: Any = faiss.SearchParametersIVF()
    made.nprobe = lists
    return made


def _lists(count: int) -> int:
    """How many inverted lists so many vectors have."""
    return max(1, round(2 * math.sqrt(count)))
