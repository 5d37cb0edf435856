"""Bytes of image files: readable, damaged and hostile ones."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from cnn.data.image_files import MAX_BYTES

LOSSLESS = {
    "PNG": {},
    "WebP": {"lossless": True},
    "BMP": {},
    "GIF": {},
    "TIFF": {},
    "TIFF, LZW": {"compression": "tiff_lzw"},
    "TIFF, deflate": {"compression": "tiff_deflate"},
    "TIFF, PackBits": {"compression": "packbits"},
}
"""Options by format, and variant of a format, that keeps the pixels."""


def encoded(images, format, **options):
    """The file of a PIL image, or of several as frames or pages."""
    first, *others = images if isinstance(images, list) else [images]
    frames = {"save_all": True, "append_images": others} if others else {}
    file = io.BytesIO()
    first.save(file, format.split(",")[0], **frames, **options)
    return file.getvalue()


def png(pixels, mode=None):
    return encoded(pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels, mode), "PNG")


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width, height):
    """A few kilobytes that claim to have width x height pixels, and have a part of them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(width * 1000), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def tiff(width, height, tile_width, tile_height):
    """A grey TIFF file of one tile, compressed; its pixels are 0."""
    data = zlib.compress(bytes(tile_width * tile_height), 9)
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1}
    tags |= {322: tile_width, 323: tile_height, 324: 8, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<4sI", b"II*\0", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def _resized(content, position, number_format, width, height):
    """The file with another width and height in its header."""
    changed = bytearray(content)
    struct.pack_into(number_format, changed, position, width, height)
    return bytes(changed)


RAMP = Image.fromarray(np.arange(784).astype(np.uint8).reshape(28, 28))
FRAMES = [RAMP, Image.new("L", (28, 28), 90)]
_ANIMATED_WEBP = encoded(FRAMES, "WebP")

HOSTILE = {
    "empty": (b"", "of another format"),
    "garbage": (np.random.default_rng(0).bytes(1000), "of another format"),
    "text": (b"GET / HTTP/1.1\n", "of another format"),
    "a.ico": (encoded(RAMP, "ICO"), "of another format"),
    "truncated.png": (png(RAMP)[:-40], "has no end"),
    "endless.png": (png(RAMP)[:-12], "has no end"),
    "half.png": (png(RAMP)[:40], "has no end"),
    "bomb.png": (bomb(10_000, 10_000), "but at most 40,000,000 are decoded"),
    "larger bomb.png": (bomb(60_000, 60_000), "could be decompression bomb"),
    "bomb.bmp": (_resized(encoded(RAMP, "BMP"), 18, "<ii", 10_000, 10_000), "but at most 40,000,000 are decoded"),
    "bomb.gif": (_resized(encoded(RAMP, "GIF"), 6, "<HH", 10_000, 10_000), "but at most 40,000,000 are decoded"),
    # The width and the height of an animation's canvas have 24 bits each.
    "bomb.webp": (_resized(_ANIMATED_WEBP, 24, "<HxH", 9_999, 9_999), "but at most 40,000,000 are decoded"),
    "bomb.tif": (
        encoded(Image.new("1", (10_000, 10_000)), "TIFF", compression="group4"),
        "but at most 40,000,000 are decoded",
    ),
    "tile bomb.tif": (tiff(10, 10, 7_000, 7_000), "tiles of 7000 x 7000 pixels, but at most 40,000,000 are decoded"),
    "short.png": (bomb(100, 2000), "truncated|broken"),
    "integer.tif": (encoded(Image.new("I", (28, 28), 70_000), "TIFF"), "pixels of 32 bits"),
    "float.tif": (encoded(Image.new("F", (28, 28), 0.5), "TIFF"), "pixels of 32 bits"),
    "large.png": (b"\x89PNG\r\n\x1a\n" + bytes(MAX_BYTES), "bytes, but at most"),
}
"""Content by file name, and the reason for which it is refused."""

READABLE = {
    **{name: encoded(RAMP, name, **options) for name, options in LOSSLESS.items()},
    **{f"frames, {name}": encoded(FRAMES, name) for name in ("PNG", "WebP", "GIF", "TIFF")},
    "JPEG": encoded(RAMP, "JPEG"),
    "WebP, lossy": encoded(RAMP, "WebP"),
    "TIFF, JPEG": encoded(RAMP, "TIFF", compression="jpeg"),
    "TIFF, fax": encoded(RAMP.convert("1"), "TIFF", compression="group4"),
    "TIFF, tile": tiff(28, 28, 32, 32),
    "PNG, too short": bomb(30, 30),
}
"""Content by format and variant, to be damaged."""
