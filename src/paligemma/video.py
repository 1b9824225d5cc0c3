"""A video file -> a few frames, evenly spaced in time, or one every so many seconds.

Decoding runs in a child process, because a damaged video can kill its decoder.

The child is `python -m paligemma.video`: it is told what to do in one line of JSON on its standard input, and answers with one line of
JSON and the pixels. It limits its own memory and time, and reads only well-known containers, whose contents cannot refer to other files.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .errors import InputError, UsageError
from .printable import printable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

EXTENSIONS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".3gp", ".ogv"})
"""What is taken for a video by its name."""
DEFAULT_FRAMES = 16
MAX_FRAMES = 256
WINDOW = 32
"""Frames that are in memory at a time where there may be any number."""

_CONTAINERS = "mov,matroska,webm,avi,mpeg,ogg"
"""FFmpeg's names of the formats that are opened. Playlists are not among them: they make the decoder open other files and addresses."""


@dataclass(frozen=True)
class VideoLimits:
    """`max_decoded` frames may be decoded to find the wanted ones; `memory` and `seconds_to_decode` bound the child process."""

    max_bytes: int = 2 << 30
    max_seconds: float = 3600.0
    max_pixels: int = 4096 * 2304
    max_decoded: int = 20_000
    memory: int = 4 << 30
    seconds_to_decode: float = 120.0


def check_frames(count: int) -> None:
    """`UsageError` for more of a video than `sample_frames` takes, or none."""
    if not 1 <= count <= MAX_FRAMES:
        what = f"{count:,} frames of a video were asked for; it can be 1 to {MAX_FRAMES}"
        raise UsageError(what, hint=f"{DEFAULT_FRAMES} is usual: they are spread evenly over its length")


def sample_frames(path: str | Path, count: int = DEFAULT_FRAMES, *, limits: VideoLimits | None = None) -> list[Image.Image]:
    """`count` upright RGB frames: those on screen in the middle of `count` equal parts of the video. Short videos repeat frames.

    Raises `InputError` for what is missing, too large, too long, damaged, or not a video, and where PyAV is not installed.
    """
    check_frames(count)
    return [image for _, image in _frames(path, {"count": count}, limits or VideoLimits())]


def frames_every(path: str | Path, seconds: float, *, limits: VideoLimits | None = None) -> Iterator[tuple[float, Image.Image]]:
    """(seconds since the beginning, upright RGB frame), the first on screen in the middle of the first so many `seconds`, and so on to the
    end. A few at a time are in memory. Raises as `sample_frames`, `UsageError` where `seconds` is less than a hundredth."""
    if not seconds >= 0.01:
        raise UsageError(f"a frame every {seconds} seconds was asked for; it can be a hundredth at least")
    first, found = 0, [()] * WINDOW
    while len(found) == WINDOW:
        found = _frames(path, {"every": seconds, "first": first, "count": WINDOW}, limits or VideoLimits())
        yield from found
        first += WINDOW


def _frames(path: str | Path, wanted: dict[str, Any], limits: VideoLimits) -> list[tuple[float, Image.Image]]:
    """Those at the wanted times (see `_times`), by a child."""
    name = printable(str(path))
    if importlib.util.find_spec("av") is None:
        raise InputError(
            f"{name}: reading a video needs PyAV, which is not installed", hint='pip install "paligemma[video]"', code="video_unsupported"
        )
    if not os.path.isfile(path):
        raise InputError(f"{name}: {'not a file' if os.path.lexists(path) else 'no such file'}", code="not_found")
    size = os.path.getsize(path)
    if size > limits.max_bytes:
        raise InputError(f"{name}: {size:,} bytes, at most {limits.max_bytes:,} are allowed for a video", code="video_too_large")
    task = {"path": os.path.abspath(path), "wanted": wanted, "limits": dataclasses.asdict(limits)}
    try:
        done = subprocess.run(
            # -P: a module lying in the working directory is not imported by mistake.
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps(task).encode(),
            capture_output=True,
            timeout=limits.seconds_to_decode,
            env=_child_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{name}: decoding took longer than {limits.seconds_to_decode:g} s", code="video_too_slow") from error
    answer, _, pixels = done.stdout.partition(b"\n")
    if done.returncode or not answer:
        raise InputError(f"{name}: the video decoder died ({_cause(done)}); the file is damaged", code="video_damaged")
    reply = json.loads(answer)
    if "error" in reply:
        raise InputError(f"{name}: {reply['error']}", code=reply["code"])
    return list(zip(reply["times"], _split(reply["sizes"], memoryview(pixels)), strict=True))


def _child_environment() -> dict[str, str]:
    """The child finds this package where the parent found it, and starts no thread pools it does not need."""
    package_root = str(Path(__file__).resolve().parent.parent)
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _cause(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"signal {-done.returncode}"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return printable(f"exit code {done.returncode}" + (f": {last[0][:120]}" if last else ""))


def _split(sizes: list[tuple[int, int]], pixels: memoryview) -> Iterator[Image.Image]:
    start = 0
    for width, height in sizes:
        end = start + width * height * 3
        yield Image.frombytes("RGB", (width, height), pixels[start:end])
        start = end


# In the child


def _main() -> None:
    task = json.load(sys.stdin)
    limits = VideoLimits(**task["limits"])
    _limit_process(limits)
    reply: dict[str, Any]
    frames: list[Image.Image] = []
    try:
        times, frames = _decode(task["path"], task["wanted"], limits)
        reply = {"times": times, "sizes": [frame.size for frame in frames]}
    except InputError as error:
        reply = {"error": error.message, "code": error.code}
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    for frame in frames:
        sys.stdout.buffer.write(frame.tobytes())


def _limit_process(limits: VideoLimits) -> None:
    try:
        import resource
    except ImportError:  # not on Windows, where the parent's clock is the only limit
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))


def _decode(path: str, wanted: dict[str, Any], limits: VideoLimits) -> tuple[list[float], list[Image.Image]]:
    """Times since the beginning, and the frames."""
    import av
    import av.error

    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
    try:
        # An open file instead of its name: to FFmpeg a name such as "concat:a|b" is more than a name.
        with open(path, "rb") as file, av.open(file, mode="r", options=options) as container:
            begin, times = _times(container, wanted, limits)
            frames = [_upright(frame) for frame in _sample(container, begin, times, limits)]
            return [moment - begin for moment in times], frames
    except InputError:
        raise
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise InputError("not a video that can be read: of another format, damaged or cut short", code="video_damaged") from error


_JUMP = 3.0
"""Seconds ahead from which seeking (to the key frame before) is preferred to decoding all that lies between."""


def _times(container: InputContainer, wanted: dict[str, Any], limits: VideoLimits) -> tuple[float, list[float]]:
    """The video's first moment and those that are wanted: the middles of `count` equal parts; or of parts of `every` seconds, `count` of
    them from number `first` on, as far as there are."""
    if not container.streams.video:
        raise InputError("there is no picture track", code="video_damaged")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 2
    _check_pixels(stream.codec_context.width, stream.codec_context.height, limits)
    begin, end = _span(container, stream)
    if end - begin > limits.max_seconds:
        raise InputError(f"{end - begin:.0f} s long, at most {limits.max_seconds:.0f} s are allowed", code="video_too_long")
    if "every" not in wanted:
        return begin, [begin + (index + 0.5) * (end - begin) / wanted["count"] for index in range(wanted["count"])]
    parts = range(wanted["first"], wanted["first"] + wanted["count"])
    times = [begin + (part + 0.5) * wanted["every"] for part in parts]
    # A video that is shorter than half a part has its only frame.
    return begin, [moment for moment in times if moment < end] or ([begin] if not wanted["first"] else [])


def _sample(container: InputContainer, begin: float, times: list[float], limits: VideoLimits) -> Iterator[VideoFrame]:
    """The frame on screen at each of these times, which rise."""
    stream = container.streams.video[0]
    frames = container.decode(stream)
    shown: VideoFrame | None = None
    following: VideoFrame | None = None
    position = begin
    decoded = 0
    for wanted in times:
        if wanted - position > _JUMP:
            container.seek(int(wanted / float(stream.time_base or 1)), stream=stream)
            frames, shown, following = container.decode(stream), None, None
        while following is None or position <= wanted:
            shown, following = following or shown, next(frames, None)
            if following is None:
                break
            position = following.time or 0.0
            decoded += 1
            if decoded > limits.max_decoded:
                raise InputError(f"more than {limits.max_decoded:,} frames would have to be decoded", code="video_too_long")
        frame = shown or following
        if frame is None:
            raise InputError("there is no frame in it", code="video_damaged")
        yield frame


def _span(container: InputContainer, stream: VideoStream) -> tuple[float, float]:
    """First and last moment in seconds, from the packets: what headers say about the duration is often an estimate."""
    begin = end = None
    for packet in container.demux(stream):
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            begin = stamp if begin is None else min(begin, stamp)
            end = max(end or stamp, stamp + (packet.duration or 0))
    if begin is None or end is None or stream.time_base is None:
        raise InputError("there is no frame in it", code="video_damaged")
    container.seek(begin, stream=stream)
    return float(begin * stream.time_base), float(end * stream.time_base)


def _check_pixels(width: int, height: int, limits: VideoLimits) -> None:
    if width * height > limits.max_pixels:
        raise InputError(f"frames of {width} x {height} exceed the limit of {limits.max_pixels:,} pixels", code="video_too_many_pixels")


def _upright(frame: VideoFrame) -> Image.Image:
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


if __name__ == "__main__":
    _main()
