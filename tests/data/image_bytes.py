"""Bytes of image files: readable, damaged and hostile ones."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image

from cnn.data.image_files import MAX_BYTES


def png(pixels, mode=None):
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels, mode)).save(file, "PNG")
    return file.getvalue()


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width, height):
    """A few kilobytes that claim to have width x height pixels, and have a part of them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(width * 1000), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def animated():
    file, frames = io.BytesIO(), [Image.new("L", (28, 28), value) for value in (0, 90)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def _gif():
    file = io.BytesIO()
    Image.new("L", (28, 28)).save(file, "GIF")
    return file.getvalue()


HOSTILE = {
    "empty": (b"", "neither PNG nor JPEG"),
    "garbage": (os.urandom(1000), "neither PNG nor JPEG"),
    "text": (b"GET / HTTP/1.1\n", "neither PNG nor JPEG"),
    "a.gif": (_gif(), "neither PNG nor JPEG"),
    "truncated.png": (png(np.arange(784, dtype=np.uint8).reshape(28, 28))[:-40], "has no end"),
    "endless.png": (png(np.zeros((28, 28), np.uint8))[:-12], "has no end"),
    "half.png": (png(np.zeros((28, 28), np.uint8))[:40], "has no end"),
    "bomb.png": (bomb(10_000, 10_000), "but at most 40,000,000 are decoded"),
    "larger bomb.png": (bomb(60_000, 60_000), "could be decompression bomb"),
    "short.png": (bomb(100, 2000), "truncated|broken"),
    "animated.png": (animated(), "animated"),
    "large.png": (b"\x89PNG\r\n\x1a\n" + bytes(MAX_BYTES), "bytes, but at most"),
}
"""Content by file name, and the reason for which it is refused."""
