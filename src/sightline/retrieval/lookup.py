"""Which rows hold a value: an inverted index of one column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Lookup:
    """A column turned around.

    Args:
        values: the different values.
        starts: [values + 1] where each value's rows begin.
        rows: rows by value, rising within a value.
    """

    values: pa.Array
    starts: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, column: pa.Array, rows: np.ndarray) -> Lookup:
        """Turn a column around; `rows` says which row each of its values stands in. "" is no value."""
        coded = column.dictionary_encode()
        codes = coded.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(coded.dictionary) + 1))
        return cls(coded.dictionary, starts, rows[order].astype(np.int64))

    def of_each(self, wanted: Sequence[Sequence[Any]]) -> list[np.ndarray]:
        """For each list of values, the rows that hold any of them; "" is held by none."""
        flat = [v for values in wanted for v in values if v != ""]
        if not flat or not len(self.values):
            return [NONE for _ in wanted]
        asked = pa.array(flat, self.values.type)
        places = pc.fill_null(pc.index_in(asked, value_set=self.values), -1).to_pylist()
        code = dict(zip(flat, places, strict=True))
        return [self._rows([code[v] for v in values if v != ""]) for values in wanted]

    def _rows(self, codes: Sequence[int]) -> np.ndarray:
        held = [self.rows[self.starts[c] : self.starts[c + 1]] for c in codes if c >= 0]
        return np.concatenate(held) if held else NONE
