"""The process that decodes: `python -m paligemma.server.decoder_child` answers one picture after the other on its standard streams.

What it is given may be made to break decoders, so it is nobody: little memory, no files to write, no secrets in its environment. What it
answers is of fixed size: three numbers, and the pixels after a `DONE`.
"""

from __future__ import annotations

import io
import struct
import sys
from typing import IO, Any

from PIL import Image

from ..errors import InputError
from ..image import Limits, open_image, read_header, squeeze

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
READY, DONE, INVALID, TOO_MANY_PIXELS = range(4)
ASKED = struct.Struct(">QQ")
"""Most pixels, bytes of the file; the file follows."""
ANSWERED = struct.Struct(">BII")
"""One of the kinds above, width, height; after `DONE` the squeezed picture follows: uint8 (size, size, 3)."""


def main(size: str, resize: str, max_side: str, memory: str) -> None:
    _limit_process(int(memory))
    # The limit that is asked for holds; Pillow's own would refuse before the picture's size is known.
    Image.MAX_IMAGE_PIXELS = None
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(ANSWERED.pack(READY, 0, 0))
    answers.flush()
    while header := asked.read(ASKED.size):
        max_pixels, length = ASKED.unpack(header)
        _answer(asked.read(length), Limits(length, max_pixels, int(max_side)), int(size), resize, answers)
        answers.flush()


def _answer(data: bytes, limits: Limits, size: int, resize: Any, answers: IO[bytes]) -> None:
    try:
        image = open_image(data, limits, formats=FORMATS)
    except InputError as error:
        kind = TOO_MANY_PIXELS if error.code == "image_too_many_pixels" else INVALID
        width, height = read_header(io.BytesIO(data), "", FORMATS).size if kind == TOO_MANY_PIXELS else (0, 0)
        answers.write(ANSWERED.pack(kind, width, height))
    else:
        answers.write(ANSWERED.pack(DONE, image.width, image.height))
        answers.write(squeeze(image, size, resize).tobytes())


def _limit_process(memory: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows, where the parent's clock is the only limit
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


if __name__ == "__main__":
    main(*sys.argv[1:])
