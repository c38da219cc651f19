"""How much a request may bring and take. What is over a limit is refused before work is done for it."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one server.

    Args:
        body: bytes of a request; a base64 text is a third longer than its image.
        held: bytes of all requests that are being received; more is refused for the moment.
        seconds: within which a whole request must have arrived.
        pixels: width x height of an image. At most one image is decoded at a time: this many pixels take 12 bytes
            each.
        side: least width and height.
        voxels: of a volume at one point of time; its body is limited like any other. One volume is decoded at a time,
            and takes up to 28 bytes a voxel.
        images: of a conversation.
        messages: of a conversation.
        characters: of all its texts.
        depth: how deep its JSON may be nested.
        answer: tokens of the longest answer.
        usual: tokens of an answer for which nothing is said.
        temperature: of answers for which nothing is said.
        tries: wrong tokens of one address in a minute.
    """

    body: int = 20 * MIB
    held: int = 64 * MIB
    seconds: float = 10.0
    pixels: int = 25_000_000
    side: int = 8
    voxels: int = 256**3
    images: int = 8
    messages: int = 64
    characters: int = 8_000
    depth: int = 16
    answer: int = 1024
    usual: int = 256
    temperature: float = 0.0
    tries: int = 5
