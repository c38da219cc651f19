"""PNG and JPEG files: right values from every stored form, and a clear word for every bad one."""

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import refusals
from sightline import images, plugins
from sightline.errors import ImageError
from sightline.images.formats import MAX_PIXELS, check_pixels
from sightline.images.formats.raster import check, header, raster
from sightline.types import ImageRef

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, bits: int, colour: int, rows: bytes, extra: bytes = b"", interlace: int = 0
) -> bytes:
    """A PNG written by hand: Pillow writes neither lies nor 16-bit colour."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + extra + body


def deep(values: np.ndarray) -> bytes:
    """Rows of a 16-bit PNG, unfiltered: [H, W, C] uint16."""
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)


def save(path: Path, picture: Image.Image, **how: object) -> Path:
    picture.save(path, **how)
    return path


def refusal(path: Path, **how: int) -> ImageError:
    """Both ways of reading refuse, with the same words."""
    return refusals.refusal(path, raster, check, **how)


def test_8_bit_grey_is_repeated(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(GREY))
    pixels = raster(path)
    assert pixels.dtype == np.float32
    assert pixels.shape == (5, 7, 3)
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, np.repeat(GREY[:, :, None].astype(np.float32) / 255, 3, axis=2))
    assert header(path) == (7, 5, 1, 8)


def test_8_bit_colour_is_exact(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(COLOUR))
    assert np.array_equal(raster(path), COLOUR.astype(np.float32) / 255)
    assert header(path) == (7, 5, 3, 8)


def test_16_bit_grey_keeps_its_depth(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    path = save(tmp_path / "a.png", Image.fromarray(values))
    assert np.array_equal(raster(path)[:, :, 0], values.astype(np.float32) / 65535)
    assert header(path) == (7, 5, 1, 16)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_and_alpha_keep_their_depth(tmp_path: Path, colour: int, channels: int) -> None:
    values = RNG.integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(7, 5, 16, colour, deep(values)))
    floats = values.astype(np.float64) / 65535
    expected = floats[:, :, :3] if colour == 2 else floats[:, :, :-1] * floats[:, :, -1:]
    assert np.abs(raster(tmp_path / "a.png") - expected).max() < 1e-6
    assert header(tmp_path / "a.png") == (7, 5, channels, 16)
    check(tmp_path / "a.png")


@pytest.mark.parametrize(("bits", "top"), [(2, 3), (4, 15)])
def test_few_bits_of_grey_span_the_whole_range(tmp_path: Path, bits: int, top: int) -> None:
    row = b"\0" + bytes([top << (8 - bits)])  # one filter byte, then white and black
    (tmp_path / "a.png").write_bytes(png(2, 1, bits, 0, row))
    assert raster(tmp_path / "a.png")[0, :, 0].tolist() == [1, 0]
    assert header(tmp_path / "a.png") == (2, 1, 1, bits)


def test_interlaced_16_bit_colour(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (9, 10, 3), dtype=np.uint16)
    passes = [
        (0, 8, 0, 8),
        (0, 8, 4, 8),
        (4, 8, 0, 4),
        (0, 4, 2, 4),
        (2, 4, 0, 2),
        (0, 2, 1, 2),
        (1, 2, 0, 1),
    ]
    rows = b"".join(deep(values[y::high, x::wide]) for y, high, x, wide in passes)
    (tmp_path / "a.png").write_bytes(png(10, 9, 16, 2, rows, interlace=1))
    assert np.abs(raster(tmp_path / "a.png") - values / 65535).max() < 1e-6


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(np.full((24, 16, 3), 200, np.uint8)).convert(mode)
    path = save(tmp_path / "a.jpg", picture, quality=95)
    pixels = raster(path)
    assert pixels.shape == (24, 16, 3)
    assert np.abs(pixels - 200 / 255).max() < 2 / 255
    assert header(path) == (16, 24, len(mode), 8)
    check(path)


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    pixels = raster(path)
    assert pixels[8, 8, 0] > 0.9
    assert pixels[8, 8, 1:].max() < 0.1


def test_1_bit_and_palette(tmp_path: Path) -> None:
    mask = GREY > 127
    assert np.array_equal(
        raster(save(tmp_path / "1.png", Image.fromarray(mask)))[:, :, 0], mask.astype(np.float32)
    )
    assert header(tmp_path / "1.png") == (7, 5, 1, 1)
    palette = Image.fromarray(GREY // 128).copy()
    palette.putpalette([255, 0, 0, 0, 0, 255])
    pixels = raster(save(tmp_path / "p.png", palette))
    assert np.array_equal(pixels[:, :, 2], (GREY // 128).astype(np.float32))
    assert np.array_equal(pixels[:, :, 0], 1 - (GREY // 128).astype(np.float32))


def test_alpha_is_composited_over_black(tmp_path: Path) -> None:
    alpha = np.concatenate([COLOUR, GREY[:, :, None]], axis=2)
    pixels = raster(save(tmp_path / "a.png", Image.fromarray(alpha)))
    assert np.abs(pixels - COLOUR / 255 * (GREY[:, :, None] / 255)).max() < 1e-6
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 255, 255, 255, 0, 0])
    palette.putdata([0, 1])
    pixels = raster(save(tmp_path / "p.png", palette, transparency=0))
    assert pixels.tolist() == [[[0, 0, 0], [1, 0, 0]]]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, turn: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(COLOUR), exif=exif)
    with Image.open(path) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"), np.float32) / 255
    assert np.array_equal(raster(path), upright)
    assert header(path)[:2] == (upright.shape[1], upright.shape[0])


def test_one_pixel(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("L", (1, 1), 255))
    assert raster(path).tolist() == [[[1, 1, 1]]]
    check(path)


def test_a_phone_jpeg_with_several_pictures_gives_the_first(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (16, 16), (250, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 250))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert raster(tmp_path / "a.jpg")[8, 8, 0] > 0.9
    check(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_anywhere(tmp_path: Path, suffix: str) -> None:
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = save(tmp_path / f"whole.{suffix}", Image.fromarray(noise)).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for share in (0.002, 0.01, 0.1, 0.5, 0.9, 0.99):
        cut.write_bytes(whole[: max(12, int(len(whole) * share))])
        assert refusal(cut).what in (
            "the image file is truncated",
            "the image file is damaged or cannot be read",
        )
    cut.write_bytes(whole[: len(whole) // 2])
    error = refusal(cut)
    assert error.what == "the image file is truncated"
    assert error.expected == "a complete PNG or JPEG file"
    assert "fetch the file again" in error.remedy


@pytest.mark.parametrize("progressive", [False, True])
def test_check_sees_the_last_byte_of_a_large_jpeg(tmp_path: Path, progressive: bool) -> None:
    noise = RNG.integers(0, 256, (400, 300, 3), dtype=np.uint8)
    path = save(tmp_path / "a.jpg", Image.fromarray(noise), progressive=progressive)
    check(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert "truncated" in refusal(path).what


def test_check_sees_a_flipped_bit_in_a_png(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(COLOUR))
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"IDAT") + 12] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(ImageError, match="damaged"):
        check(path)


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    error = refusal(tmp_path / "a.png")
    assert error.what == "the image file has the wrong type"
    assert "(none)" in error.found


@pytest.mark.parametrize("side", [7072, 20000, 2**31 - 1])
def test_a_huge_claim_costs_no_memory(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png(side, side, 8, 2, b"\0"))
    tracemalloc.start()
    error = refusal(tmp_path / "a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.what == "the image is too large"
    assert f"{side} x {side} = {side * side} pixels" in error.found
    assert error.expected == "at most 50000000 pixels"
    assert "max_pixels" in error.remedy
    assert peak < 2**20


def test_a_huge_jpeg_claim(tmp_path: Path) -> None:
    whole = bytearray(save(tmp_path / "a.jpg", Image.fromarray(COLOUR)).read_bytes())
    at = whole.index(b"\xff\xc0") + 5
    whole[at : at + 4] = struct.pack(">HH", 65000, 65000)
    (tmp_path / "a.jpg").write_bytes(bytes(whole))
    assert refusal(tmp_path / "a.jpg").what == "the image is too large"


def test_max_pixels_is_a_bound_that_may_be_met(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(GREY))
    assert raster(path, max_pixels=35).shape == (5, 7, 3)
    assert refusal(path, max_pixels=34).found == "7 x 5 = 35 pixels"


def test_the_default_of_the_plug_in_is_the_shared_one() -> None:
    assert plugins.options("formats", "raster") == {"max_pixels": (int, MAX_PIXELS)}


def test_the_wrong_type_is_named(tmp_path: Path) -> None:
    text, gif, jp2 = tmp_path / "text.png", tmp_path / "gif.png", tmp_path / "odd.png"
    text.write_text("<!DOCTYPE html><html>Please log in</html>")
    Image.fromarray(GREY).save(gif, format="GIF")
    jp2.write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40))
    for path, found in ((text, "a text file"), (gif, "a GIF file"), (jp2, "a JPEG 2000 file")):
        error = refusal(path)
        assert error.what == "the image file has the wrong type"
        assert error.found == found
        assert "PNG or JPEG" in error.expected


def test_bytes_decide_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).save(path, format="PNG")
    assert np.array_equal(raster(path), COLOUR.astype(np.float32) / 255)


def test_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    error = refusal(tmp_path / "a.png")
    assert error.what == "the image is an animation"
    assert error.found == "2 frames"


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert refusal(tmp_path / "a.png").what == "the image is a FIFO, not a file"


def test_a_text_chunk_that_unpacks_to_much_is_refused(tmp_path: Path) -> None:
    bomb = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(80_000_000), 9))
    (tmp_path / "a.png").write_bytes(png(7, 5, 8, 0, bytes(40), extra=bomb))
    assert "damaged" in refusal(tmp_path / "a.png").what


@pytest.mark.filterwarnings("ignore:.*EXIF|.*[Tt]ag")
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_random_damage_ends_in_our_error_or_in_valid_pixels(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, format={"png": "PNG", "jpg": "JPEG"}[suffix], exif=exif)
    rng, path, blocks = np.random.default_rng(0), tmp_path / f"a.{suffix}", []
    for _ in range(300):
        data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        data[rng.integers(3, len(data), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(data.tobytes())
        try:
            check_pixels(raster(path, max_pixels=100_000))
        except ImageError as error:
            blocks.append(error.block())
    assert len(blocks) > 20
    assert not any(str(tmp_path) in block or " at 0x" in block for block in blocks)


def test_read_finds_the_format_by_suffix(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    save(tmp_path / "x" / "A.PNG", Image.fromarray(COLOUR))
    ref = ImageRef(path="x/A.PNG")
    assert np.array_equal(images.read(tmp_path, ref), COLOUR.astype(np.float32) / 255)
    assert images.header(tmp_path, ref) == (7, 5, 3, 8)
    assert images.check(tmp_path, ref) == images.files.hash_file(tmp_path / "x" / "A.PNG")


@pytest.mark.parametrize(
    ("name", "form"), [("a.dcm", "raster"), ("a.nii.gz", "raster"), ("a.png", "volume"), ("a", "raster")]
)
def test_wrong_forms_and_unknown_suffixes(tmp_path: Path, name: str, form: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    known = ".jfif, .jpe, .jpeg, .jpg, .png" if form == "raster" else ".nii, .nii.gz"
    for act in (images.read, images.check, images.header, images.volume, images.extent):
        with pytest.raises(ImageError) as caught:
            act(tmp_path, ImageRef(path=name, form=form), record="r1")
        assert caught.value.what == "this kind of image is not read"
        assert caught.value.expected == f"for the form {form} one of {known}"
        assert caught.value.where == f"record r1, field image, file {name}"


def test_errors_of_read_name_record_and_relative_path(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").write_text("no picture")
    with pytest.raises(ImageError) as caught:
        images.read(tmp_path, ImageRef(path="x/a.png"), record="r9")
    assert caught.value.where == "record r9, field image, file x/a.png"
    assert caught.value.block().startswith("image: the image file has the wrong type\n  where:")
