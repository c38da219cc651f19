"""Paths of images: whatever a data set says, only a regular file below the root is opened."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from sightline.errors import ImageError
from sightline.images import files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    home = tmp_path / "root"
    (home / "images").mkdir(parents=True)
    (home / "images" / "a.png").write_bytes(b"picture")
    (tmp_path / "outside.png").write_bytes(b"secret")
    return home


def refusal(root: Path, path: str) -> ImageError:
    with pytest.raises(ImageError) as caught:
        files.resolve(root, path, record="r7")
    error = caught.value
    assert "record r7" in error.where
    assert "field image" in error.where
    assert error.expected
    assert error.remedy
    assert str(root) not in error.block()
    return error


def test_a_file_below_the_root_is_found(root: Path) -> None:
    assert files.resolve(root, "images/a.png") == (root / "images" / "a.png").resolve()
    assert files.resolve(root, "./images//a.png") == (root / "images" / "a.png").resolve()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "the image path is empty"),
        ("   ", "the image path is empty"),
        ("/etc/passwd", "the image path is absolute"),
        ("\\\\server\\share\\a.png", "the image path is absolute"),
        ("C:\\scans\\a.png", "the image path starts with a drive letter"),
        ("c:/scans/a.png", "the image path starts with a drive letter"),
        ("../outside.png", "the image path holds '..'"),
        ("images/../../outside.png", "the image path holds '..'"),
        ("images\\..\\..\\outside.png", "the image path holds '..'"),
        ("images\\a.png", "the image path holds a backslash"),
        ("images/a.png\0.txt", "the image path holds a NUL byte"),
        ("http://example.org/a.png", "the image path is a URL"),
        ("HTTPS://example.org/a.png", "the image path is a URL"),
        ("file:///etc/passwd", "the image path is a URL"),
        ("file:images/a.png", "the image path is a URL"),
        ("data:image/png;base64,iVBORw0KGgo=", "the image path is a URL"),
        ("s3://bucket/a.png", "the image path is a URL"),
    ],
)
def test_a_path_that_is_wrong_as_text(root: Path, path: str, words: str) -> None:
    error = refusal(root, path)
    assert error.what == words
    assert "relative to the data root" in error.expected


def test_a_missing_file_is_named_by_its_relative_path(root: Path) -> None:
    error = refusal(root, "images/b.png")
    assert error.what == "the image file is missing"
    assert "file images/b.png" in error.where
    assert "data.root" in error.remedy


def test_a_file_in_the_place_of_a_folder_is_a_missing_file(root: Path) -> None:
    assert refusal(root, "images/a.png/b.png").what == "the image file is missing"


def test_a_missing_root(root: Path) -> None:
    assert refusal(root / "elsewhere", "images/a.png").what == "the data root is missing"


def test_an_empty_file(root: Path) -> None:
    (root / "empty.png").touch()
    error = refusal(root, "empty.png")
    assert error.what == "the image file is empty"
    assert error.found == "0 bytes"


def test_a_folder(root: Path) -> None:
    assert refusal(root, "images").what == "the image is a folder, not a file"


def test_a_fifo_is_refused_without_waiting(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    assert refusal(root, "pipe.png").what == "the image is a FIFO, not a file"


def test_a_socket_and_a_device(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's name may be 108 bytes long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        assert refusal(root, "s.png").what == "the image is a socket, not a file"
    assert files.kind_of(os.stat("/dev/null").st_mode) == "device"


def test_a_link_that_leaves_the_root(root: Path) -> None:
    (root / "link.png").symlink_to("../outside.png")
    (root / "folder").symlink_to(root.parent)
    for path in ("link.png", "folder/outside.png"):
        error = refusal(root, path)
        assert error.what == "the image is a link that leaves the data root"
        assert "outside" not in error.found


def test_a_sibling_whose_name_begins_like_the_root_is_outside(root: Path) -> None:
    twin = root.with_name("root2")
    twin.mkdir()
    (twin / "a.png").write_bytes(b"x")
    (root / "link.png").symlink_to(twin / "a.png")
    assert "leaves the data root" in refusal(root, "link.png").what


def test_links_within_the_root_and_a_linked_root_are_followed(root: Path) -> None:
    (root / "link.png").symlink_to("images/a.png")
    assert files.resolve(root, "link.png").name == "a.png"
    (root.parent / "alias").symlink_to(root)
    assert files.resolve(root.parent / "alias", "link.png") == (root / "images" / "a.png").resolve()


def test_a_loop_of_links(root: Path) -> None:
    (root / "one.png").symlink_to("two.png")
    (root / "two.png").symlink_to("one.png")
    assert refusal(root, "one.png").what in (
        "the image path cannot be followed",
        "the image file cannot be read",
    )


@pytest.mark.parametrize("path", ["x" * 5000 + ".png", "a/" * 3000 + "b.png", "\ud800.png"])
def test_odd_names_end_in_a_short_message(root: Path, path: str) -> None:
    error = refusal(root, path)
    assert len(error.block()) < 700
    assert error.block().isascii()


def test_control_characters_do_not_reach_the_terminal(root: Path) -> None:
    assert "\x1b" not in refusal(root, "images/\x1b[2Jb.png").block()


def test_hash_is_sha256_of_the_bytes(root: Path) -> None:
    assert files.hash_file(root / "images" / "a.png") == hashlib.sha256(b"picture").hexdigest()


def test_hash_of_a_missing_file_tells_its_name_only(root: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read") as caught:
        files.hash_file(root / "gone.png")
    assert str(root) not in caught.value.block()
    assert "gone.png" in caught.value.where
