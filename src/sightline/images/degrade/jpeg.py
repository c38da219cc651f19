"""Compressed too hard: blocks of eight pixels, from which fine lines and texture are gone."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from ...errors import ImageError
from . import Degradation

BEST, LOST = 100, 90  # quality near strength 0, and what strength 1 takes of it
WORST = 1.1  # quality 1, below which there is none
LONGEST = 65_500  # pixels a side; libjpeg writes no longer one


def jpeg(pixels: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """The image written as JPEG and read back.

    A corruption of ImageNet-C (Hendrycks and Dietterich, arXiv:1903.12261), whose five severities have quality
    25, 18, 15, 10 and 7. Colour is stored at half the resolution (4:2:0), grey stays grey. The bytes are those
    of the installed Pillow and its libjpeg; another version may round otherwise.

    Args:
        pixels: [H, W, 3] in [0, 1]; rounded to 8 bits first.
        rng: not used; nothing is drawn.
        strength: the quality is `round(100 - 90 * strength)`: 10 at 1, and 1 at 1.1, the highest there is. 0
            leaves the image as it is, not even rounded.

    Returns:
        float32 [H, W, 3] in [0, 1], in steps of 1/255.

    Raises:
        ImageError: strength outside [0, 1.1], or a side of more than 65500 pixels.
    """
    if not 0.0 <= strength <= WORST:
        raise ImageError(
            "the degradation 'jpeg' has no such quality", found=f"strength {strength}",
            expected=f"strength from 0 to {WORST}", remedy="set degrade.strength; 1 is quality 10",
        )  # fmt: skip
    if strength == 0.0:
        return pixels.astype(np.float32)
    if max(pixels.shape[:2]) > LONGEST:
        raise ImageError(
            "the image is too long for a JPEG", found=f"{pixels.shape[0]} x {pixels.shape[1]}",
            expected=f"at most {LONGEST} pixels a side", remedy="scale the image down",
        )  # fmt: skip
    stream = BytesIO()
    levels = np.rint(pixels * 255.0).astype(np.uint8)  # [H, W, 3]
    quality = round(BEST - LOST * strength)
    Image.fromarray(levels).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    stream.seek(0)
    return np.asarray(JpegImageFile(stream), np.float32) / np.float32(255)


DEGRADE = Degradation(apply=jpeg, same_patient=True, paper="ImageNet-C, arXiv:1903.12261")
