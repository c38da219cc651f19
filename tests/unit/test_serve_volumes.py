"""Volumes that a page cuts slices from: turned, in 8 bits, limited by their headers, and nothing of them kept."""

from __future__ import annotations

import gzip
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest

from serving import QUICK, Parrot, Running, png, refused, running, until
from sightline.images.formats import nifti
from sightline.images.volume import Volume
from sightline.serve import volumes
from sightline.serve.backend import Refused
from sightline.serve.limits import Limits
from sightline.serve.volumes import shrunk

ROUTE = "/v1/volumes"
BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Parrot(), limits=replace(Limits(), voxels=64**3)) as made:
        yield made


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def ramp(shape: tuple[int, ...] = (9, 10, 11), orientation: str = "RAS") -> Volume:
    """A volume whose every voxel differs."""
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Volume(values=values, spacing=(1.0, 2.0, 3.5), orientation=orientation)


def packed(volume: Volume, folder: Path, name: str = "a.nii.gz") -> bytes:
    """A volume as a NIfTI file's bytes."""
    nifti.write(folder / name, volume)
    return (folder / name).read_bytes()


def test_a_volume_comes_back_turned_and_in_eight_bits(client: httpx.Client, tmp_path: Path) -> None:
    wanted = ramp()
    flipped = Volume(
        values=np.ascontiguousarray(wanted.values[::-1, ::-1].transpose(2, 0, 1)), spacing=(3.5, 1.0, 2.0),
        orientation="SLP",
    )  # fmt: skip
    for volume in (wanted, flipped):
        answer = client.post(ROUTE, content=packed(volume, tmp_path), headers=BYTES)
        assert answer.status_code == 200
        assert answer.headers["sightline-shape"] == "9,10,11"
        assert answer.headers["sightline-spacing"] == "1,2,3.5"
        assert answer.headers["sightline-times"] == "1"
        assert answer.headers["cache-control"] == "no-store"
        voxels = np.frombuffer(answer.content, np.uint8).reshape(9, 10, 11)
        low, high = np.percentile(wanted.values, (0.5, 99.5))
        right = np.clip((wanted.values - low) / (high - low) * 255, 0, 255)
        assert np.abs(voxels - right).max() <= 0.51
        assert voxels.min() == 0
        assert voxels.max() == 255


def test_of_several_points_of_time_the_first_is_read(client: httpx.Client, tmp_path: Path) -> None:
    four = np.stack([ramp().values, np.full((9, 10, 11), 7, np.float32)], axis=-1)
    moving = Volume(values=np.ascontiguousarray(four), spacing=(1.0, 1.0, 1.0), seconds=2.0)
    answer = client.post(ROUTE, content=packed(moving, tmp_path, "a.nii"), headers=BYTES)
    assert (answer.headers["sightline-times"], len(answer.content)) == ("2", 990)
    assert len(set(answer.content)) > 200


def test_what_is_nearly_all_background_still_shows_its_object(tmp_path: Path) -> None:
    values = np.zeros((20, 20, 20), np.float32)
    values[10, 10, 10:13] = 5
    made = shrunk(packed(Volume(values=values, spacing=(1.0, 1.0, 1.0)), tmp_path), Limits())
    assert made.voxels[10, 10, 11] == 255
    assert made.voxels.sum() == 3 * 255


def test_extreme_values_make_no_holes(tmp_path: Path) -> None:
    values = np.linspace(-3e38, 3e38, 1000, dtype=np.float32).reshape(10, 10, 10)
    made = shrunk(packed(Volume(values=values, spacing=(1.0, 1.0, 1.0)), tmp_path), Limits()).voxels.ravel()
    assert (np.diff(made.astype(int)) >= 0).all()
    assert (made[0], made[-1]) == (0, 255)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "volume_unreadable"),
        (b"\0" * 400, "volume_unreadable"),
        (png(), "volume_unreadable"),
        (bytes(128) + b"DICM" + bytes(400), "dicom"),
        (gzip.compress(b"\0" * 10_000), "volume_unreadable"),
    ],
    ids=["empty", "zeros", "png", "dicom", "packed zeros"],
)
def test_what_is_no_nifti_is_refused(client: httpx.Client, data: bytes, code: str) -> None:
    answer = client.post(ROUTE, content=data, headers=BYTES)
    refused(answer, 400, code)
    assert ("DICOM files are not read here" in answer.text) == (code == "dicom")


def test_damaged_volumes_are_refused(client: httpx.Client, tmp_path: Path) -> None:
    whole = packed(ramp(), tmp_path)
    raw = gzip.decompress(whole)
    nowhere = bytearray(raw)
    nowhere[252:256] = struct.pack("<hh", 0, 0)  # neither a qform nor an sform is coded
    for data in (whole[:-20], whole[: len(whole) // 2], raw[:500], bytes(nowhere)):
        refused(client.post(ROUTE, content=data, headers=BYTES), 400, "volume_unreadable")


def huge(edge: int) -> bytes:
    """A header that promises so many voxels, and few bytes behind it."""
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    image.set_sform(np.eye(4), code=1)
    made = bytearray(image.to_bytes())
    struct.pack_into("<8h", made, 40, 3, edge, edge, edge, 1, 1, 1, 1)
    return gzip.compress(bytes(made) + bytes(100_000))


def test_a_large_volume_is_refused_by_its_header(client: httpx.Client) -> None:
    for edge in (65, 32767):
        start = time.process_time()
        tracemalloc.start()
        answer = client.post(ROUTE, content=huge(edge), headers=BYTES)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        refused(answer, 400, "volume_too_large")
        assert str(edge**3) in answer.json()["error"]["message"]
        assert time.process_time() - start < QUICK
        assert peak < 8 << 20


def test_a_volume_of_the_largest_size_takes_a_known_amount_of_memory(tmp_path: Path) -> None:
    """64-bit numbers are the worst: eight bytes a voxel as stored, twice four as read, and one that is sent.

    Where the file scales them, twice as many stand beside for a moment.
    """
    edge = 96
    image = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(edge,) * 3), np.eye(4))
    image.set_sform(np.eye(4), code=1)
    data = gzip.compress(image.to_bytes(), 1)
    limits = replace(Limits(), voxels=edge**3)
    shrunk(data, limits)
    tracemalloc.start()
    made = shrunk(data, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made.voxels.shape == (edge,) * 3
    assert peak < 19 * edge**3
    scaled = bytearray(image.to_bytes())
    struct.pack_into("<2f", scaled, 112, 2.0, 1.0)  # slope and intercept
    data = gzip.compress(bytes(scaled), 1)
    tracemalloc.start()
    again = shrunk(data, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.abs(again.voxels.astype(int) - made.voxels).max() <= 1
    assert peak < 30 * edge**3


def test_only_plain_bytes_are_taken(client: httpx.Client) -> None:
    refused(client.post(ROUTE, json={}), 415, "content_type")
    refused(client.post(ROUTE, content=b"x"), 415, "content_type")
    packed_body = {**BYTES, "content-encoding": "gzip"}
    refused(client.post(ROUTE, content=b"x", headers=packed_body), 415, "content_type")
    refused(client.post("/v1/chat/completions", content=b"x", headers=BYTES), 415, "content_type")


def test_a_body_over_the_limit_is_refused(server: Running) -> None:
    with running(Parrot(), limits=replace(Limits(), body=1000)) as small, small.client() as client:
        refused(client.post(ROUTE, content=bytes(1001), headers=BYTES), 413, "too_large")


def test_so_many_at_a_time_and_no_more(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, data, real, inside = threading.Event(), packed(ramp(), tmp_path), volumes.shrunk, []

    def slow(given: bytes, limits: Limits) -> volumes.Shrunk:
        inside.append(1)
        hold.wait(20)
        return real(given, limits)

    monkeypatch.setattr("sightline.serve.app.shrunk", slow)
    told: list[int] = []

    def ask() -> None:
        with server.client() as client:
            told.append(client.post(ROUTE, content=data, headers=BYTES).status_code)

    threads = [threading.Thread(target=ask) for _ in range(volumes.PLACES + 2)]
    for thread in threads:
        thread.start()
    until(lambda: len(told) == 2)
    assert (told, len(inside)) == ([429, 429], 1)  # two were turned away; of the others one is decoded
    hold.set()
    for thread in threads:
        thread.join()
    assert sorted(told) == [200] * volumes.PLACES + [429, 429]
    told.clear()
    ask()
    assert told == [200]  # all places are free again


def test_a_place_that_fails_is_free_again(client: httpx.Client, tmp_path: Path) -> None:
    for _ in range(volumes.PLACES + 1):
        refused(client.post(ROUTE, content=b"no volume", headers=BYTES), 400, "volume_unreadable")
    assert client.post(ROUTE, content=packed(ramp(), tmp_path), headers=BYTES).status_code == 200


def test_a_place_counts_once() -> None:
    room = volumes.Room(1)
    with room.taken() as leave:
        with pytest.raises(Refused, match="too many volumes"), room.taken():
            pass
        leave()
        leave()
    assert room.free == 1


def test_a_picture_that_is_dicom_is_called_so(client: httpx.Client) -> None:
    from serving import CHAT, question, url

    answer = client.post(CHAT, json=question(image=url(bytes(128) + b"DICM" + bytes(64))))
    refused(answer, 400, "dicom")
