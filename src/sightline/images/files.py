"""Where an image file is: paths of a data set are checked before anything is opened.

Paths come from spreadsheets and JSON of unknown origin, so each is taken as a wish: it must name a regular,
non-empty file below the data root. Messages repeat the path as it was given, never where the root is.

A merged data set has several roots. Its own holds a file `.roots.json`, `{"knee": "data/knee", ...}`: the image
`knee/a.png` is then `a.png` below `data/knee`. Only `prepare` writes it, and it reads no raw files beside one.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path, PureWindowsPath

from .. import runs
from ..errors import ImageError, RunError

URL = re.compile(r"^([a-z][a-z0-9+.-]+://|(https?|file|data|ftp|blob|s3|gs|hf):)", re.IGNORECASE)
DRIVE = re.compile(r"^[a-zA-Z]:")
SHOWN = 120
ROOTS = ".roots.json"


def resolve(root: Path, path: str, *, record: str = "") -> Path:
    """The real file that `path` names below `root`.

    Args:
        root: the data root; it may be a symbolic link itself.
        path: a POSIX path relative to `root`, as the data set gives it.
        record: id of the record that holds the image, for messages.

    Returns:
        The real path: absolute, without symbolic links, a regular file of at least one byte.

    Raises:
        ImageError: empty path, NUL byte, URL, absolute path, drive letter, backslash or `..`; a link that
            leaves the root; a missing or empty file; a folder, FIFO or device.
    """
    where = place(path, record)
    _check_words(path, where)
    found = _follow(*_mounted(root, path, where), where)
    _check_kind(found, path, where)
    return found


def _mounted(root: Path, path: str, where: str) -> tuple[Path, str]:
    """The root that a path belongs to, and the path below it: see `ROOTS`."""
    listed = root / ROOTS
    if not listed.is_file():
        return root, path
    first, _, rest = path.partition("/")
    try:
        named = runs.read_json(listed)
        return (Path(named[first]), rest) if first in named else (root, path)
    except (RunError, TypeError):
        raise ImageError(
            "the list of data roots is damaged", where=where, found=ROOTS, expected="names and folders as JSON",
            remedy="run the `prepare` stage again",
        ) from None  # fmt: skip


def place(path: str, record: str = "") -> str:
    """Record, field and file as one phrase for messages; long or odd paths are cut and made printable."""
    name = path if path.isprintable() else path.encode("unicode_escape").decode("ascii")
    name = name if len(name) <= SHOWN else f"{name[:SHOWN]}..."
    parts = [f"record {record}" if record else "", "field image", f"file {name}" if name else ""]
    return ", ".join(part for part in parts if part)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits; constant memory.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        return runs.hash_file(path)
    except OSError as error:
        raise _unreadable(error, f"file {path.name}") from None


def _check_words(path: str, where: str) -> None:
    """Refuse what can be told from the text alone."""
    shown = repr(path[:SHOWN])
    relative = "a path relative to the data root, such as images/0001.png"
    if not path.strip():
        raise ImageError(
            "the image path is empty", where=where, found=shown, expected=relative,
            remedy="fill in the image's path, or take the record out",
        )  # fmt: skip
    if "\0" in path:
        raise ImageError(
            "the image path holds a NUL byte", where=where, found=shown, expected=relative,
            remedy="mend the file that lists the images; it may be in another encoding (UTF-16)",
        )  # fmt: skip
    if URL.match(path):
        raise ImageError(
            "the image path is a URL", where=where, found=shown, expected=relative,
            remedy="download the image below the data root first; nothing is fetched from a network",
        )  # fmt: skip
    if path.startswith(("/", "\\")) or DRIVE.match(path):
        kind = "starts with a drive letter" if DRIVE.match(path) else "is absolute"
        raise ImageError(
            f"the image path {kind}", where=where, found=shown, expected=relative,
            remedy="set data.root to the folder of the images and make the paths relative to it",
        )  # fmt: skip
    if ".." in PureWindowsPath(path).parts:
        raise ImageError(
            "the image path holds '..'", where=where, found=shown, expected=relative,
            remedy="set data.root to a folder that holds all images and write paths from there",
        )  # fmt: skip
    if "\\" in path:
        raise ImageError(
            "the image path holds a backslash", where=where, found=shown, expected=relative,
            remedy="write forward slashes, also for files that came from Windows",
        )  # fmt: skip


def _follow(root: Path, path: str, where: str) -> Path:
    """The real path behind all links, which must lie below the real root."""
    try:
        home = root.resolve(strict=True)
    except (OSError, RuntimeError):
        raise ImageError(
            "the data root is missing", where=where, expected="a folder that can be read",
            remedy="set data.root",
        ) from None  # fmt: skip
    try:
        found = (home / path).resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(
            "the image file is missing", where=where, found="no such file",
            expected="a file below the data root",
            remedy="check data.root and the spelling of the path (upper and lower case differ)",
        ) from None  # fmt: skip
    except OSError as error:
        raise _unreadable(error, where) from None
    except (RuntimeError, ValueError) as error:
        raise ImageError(
            "the image path cannot be followed", where=where, found=type(error).__name__,
            expected="a path without a loop of links", remedy="mend the link or the path",
        ) from None  # fmt: skip
    if not found.is_relative_to(home):
        raise ImageError(
            "the image is a link that leaves the data root", where=where,
            found="a symbolic link to another place",
            expected="a file whose real place is below the data root",
            remedy="set data.root to the folder that holds the files, or copy them below it",
        )  # fmt: skip
    return found


def _check_kind(found: Path, path: str, where: str) -> None:
    """Only a regular file with bytes in it: opening a FIFO would wait for ever."""
    try:
        status = found.stat()
    except OSError as error:
        raise _unreadable(error, where) from None
    kind = kind_of(status.st_mode)
    if kind != "file":
        raise ImageError(
            f"the image is a {kind}, not a file", where=where, found=kind, expected="a regular file",
            remedy="point the record at the image file itself",
        )  # fmt: skip
    if status.st_size == 0:
        raise ImageError(
            "the image file is empty", where=where, found="0 bytes", expected="a PNG or JPEG file",
            remedy="fetch the file again; a copy may have been broken off",
        )  # fmt: skip


def check_regular(path: Path, where: str) -> None:
    """Refuse what is no regular file, before it is opened.

    Raises:
        ImageError: a folder, a device or the like.
        OSError: nothing is there.
    """
    kind = kind_of(path.stat().st_mode)
    if kind != "file":
        raise ImageError(f"the image is a {kind}, not a file", where=where, expected="a regular file")


def kind_of(mode: int) -> str:
    """What a file mode says the thing is: `file`, `folder`, `FIFO`, `socket` or `device`."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode):
        return "FIFO"
    return "socket" if stat.S_ISSOCK(mode) else "device"


def _unreadable(error: OSError, where: str) -> ImageError:
    """An operating-system error without the absolute path that its own text repeats."""
    return ImageError(
        "the image file cannot be read", where=where, found=error.strerror or type(error).__name__,
        expected="a file that this user may read", remedy="check permissions and the storage it lies on",
    )  # fmt: skip
