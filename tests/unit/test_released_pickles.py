"""Files of torch are read as tensors or not at all."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from sightline.errors import ModelError
from sightline.models.released.pickles import tensors
from sightline.models.released.weights import of_folder

GOOD = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones((), dtype=torch.float16)}


def saved(folder: Path, held: Any, **how: Any) -> Path:
    torch.save(held, folder / "w.bin", **how)
    return folder / "w.bin"


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    held = tensors(saved(tmp_path, GOOD))
    assert list(held) == ["a.weight", "b"]
    assert torch.equal(held["a.weight"], GOOD["a.weight"])
    assert held["b"].dtype == torch.float16
    trained = tensors(saved(tmp_path, {"p": torch.nn.Parameter(torch.ones(2))}))
    assert not trained["p"].requires_grad


class Runs:
    """What a malicious pickle is: it names a function, and what to call it with."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("place", ["value", "key", "beside"])
def test_a_malicious_pickle_is_refused_and_not_run(place: str, tmp_path: Path) -> None:
    evil, mark = Runs(tmp_path / "was run"), tmp_path / "was run"
    held: Any = {"value": {"w": evil}, "key": {evil: torch.ones(1)}, "beside": [GOOD, evil]}[place]
    path = saved(tmp_path, held)
    with pytest.raises(ModelError, match=r"(?s)asks to run code.*mkdir") as caught:
        tensors(path)
    assert not mark.exists()
    assert caught.value.remedy
    with zipfile.ZipFile(path) as archive:  # the file is malicious indeed
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        assert b"mkdir" in archive.read(name)


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    (tmp_path / "w.bin").write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(ModelError, match=r"not a file of `torch\.save`"):
        tensors(tmp_path / "w.bin")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("held", "found"),
    [
        ([torch.ones(1)], "list"),
        ({"w": {"deep": torch.ones(1)}}, "dict"),
        ({"w": 3}, "int"),
        ({3: torch.ones(1)}, "a name of type int"),
        ({"w": torch.ones(1, dtype=torch.int64)}, "torch.int64"),
        ({"w": torch.ones(2, 2).to_sparse()}, "torch.sparse_coo"),
        ({"w": torch.ones(1).expand(1_000_000)}, "shape .1000000,. of 4 stored bytes"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(held: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=found):
        tensors(saved(tmp_path, held))


def test_older_compressed_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"since torch 1\.6"):
        tensors(saved(tmp_path, GOOD, _use_new_zipfile_serialization=False))
    good = saved(tmp_path, GOOD)
    packed = tmp_path / "packed.bin"
    with zipfile.ZipFile(good) as one, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as two:
        for name in one.namelist():
            two.writestr(name, one.read(name))
    with pytest.raises(ModelError, match=r"not one that torch writes"):
        tensors(packed)
    (tmp_path / "cut.bin").write_bytes(good.read_bytes()[:-40])
    with pytest.raises(ModelError, match=r"not a file of `torch\.save`"):
        tensors(tmp_path / "cut.bin")
    (tmp_path / "lfs.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"(?s)not a file of `torch.save`.*LFS"):
        tensors(tmp_path / "lfs.bin")
    with pytest.raises(ModelError, match="no such file"):
        tensors(tmp_path / "none.bin")


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "one.bin")
    torch.save({"b": torch.zeros(2)}, tmp_path / "two.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": "one.bin", "b": "two.bin"}}')
    assert {k: v.tolist() for k, v in of_folder(tmp_path).items()} == {"a": [1.0], "b": [0.0, 0.0]}
    index.write_text('{"weight_map": {"a": "one.bin", "b": "two.bin", "c": "two.bin"}}')
    with pytest.raises(ModelError, match=r"(?s)two.bin.*1 missing: c"):
        of_folder(tmp_path)
    index.write_text('{"weight_map": {"b": "two.bin"}}')
    assert list(of_folder(tmp_path)) == ["b"]
    torch.save({"b": torch.zeros(2), "x": torch.ones(1)}, tmp_path / "two.bin")
    with pytest.raises(ModelError, match="1 unexpected: x"):
        of_folder(tmp_path)
    index.write_text('{"weight_map": {"a": "../one.bin"}}')
    with pytest.raises(ModelError, match="no shards of its own folder"):
        of_folder(tmp_path)
