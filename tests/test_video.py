"""The right frames at the right times, whatever the container; damage, crashes and excess end the child process only."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from paligemma import video
from paligemma.errors import InputError, UsageError
from paligemma.video import VideoLimits, sample_frames

av = pytest.importorskip("av")

FORMATS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9", ".avi": "mpeg4", ".mpg": "mpeg2video"}


def write(path: Path, count: int, *, rate: int = 10, codec: str = "libx264", group: int = 12) -> Path:
    """A video whose frame i shows the binary digits of i as eight stripes, 16 pixels wide, white for one."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 128, 32, "yuv420p"
        stream.codec_context.gop_size = group
        for index in range(count):
            stripes = [255 * (index >> bit & 1) for bit in range(8)]
            pixels = np.repeat(np.array(stripes, np.uint8), 16)[None, :, None].repeat(32, 0).repeat(3, 2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def number(frame) -> int:
    row = np.asarray(frame.convert("L"))[16, 8::16]
    return sum(int(level > 127) << bit for bit, level in enumerate(row))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("video") / "clip.mp4", 40)


def test_frames_are_even_in_time(clip: Path):
    frames = sample_frames(clip, 8)
    assert [number(frame) for frame in frames] == [2, 7, 12, 17, 22, 27, 32, 37]
    assert {(frame.mode, frame.size) for frame in frames} == {("RGB", (128, 32))}
    assert len(sample_frames(str(clip))) == 16


@pytest.mark.parametrize("ending", FORMATS)
def test_containers(tmp_path: Path, ending: str):
    path = write(tmp_path / f"a{ending}", 50, rate=25, codec=FORMATS[ending])
    frames = [number(frame) for frame in video._decode(str(path), {"count": 5}, VideoLimits())[1]]
    assert np.abs(np.array(frames) - [5, 15, 25, 35, 45]).max() <= 1  # some containers round times to milliseconds
    assert ending in video.EXTENSIONS


def test_seeking_finds_the_frames_that_decoding_all_finds(tmp_path: Path, monkeypatch):
    path = write(tmp_path / "long.mp4", 250, rate=5, group=20)
    jumping = [number(frame) for frame in video._decode(str(path), {"count": 6}, VideoLimits(max_decoded=130))[1]]
    assert jumping == [int((i + 0.5) * 250 / 6) for i in range(6)]
    monkeypatch.setattr(video, "_JUMP", float("inf"))
    assert [number(frame) for frame in video._decode(str(path), {"count": 6}, VideoLimits())[1]] == jumping
    with pytest.raises(InputError, match="more than 130 frames"):
        video._decode(str(path), {"count": 6}, VideoLimits(max_decoded=130))


def test_short_videos_repeat_frames(tmp_path: Path):
    path = write(tmp_path / "short.mp4", 3)
    assert [number(frame) for frame in video._decode(str(path), {"count": 7}, VideoLimits())[1]] == [0, 0, 1, 1, 1, 2, 2]
    path = write(tmp_path / "one.mp4", 1)
    assert [number(frame) for frame in video._decode(str(path), {"count": 3}, VideoLimits())[1]] == [0, 0, 0]


def test_phone_videos_are_turned_upright(tmp_path: Path):
    """The track header of an mp4 says how to turn the frames: here a quarter clockwise, so that the left edge comes to the top."""
    path = write(tmp_path / "portrait.mp4", 2)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30))
    path.write_bytes(data)
    (frame,) = video._decode(str(path), {"count": 1}, VideoLimits())[1]
    assert frame.size == (32, 128)
    assert np.asarray(frame.convert("L"))[8::16, 16].argmax() == 0  # the stripe of bit 0 was leftmost


@pytest.mark.parametrize(
    ("limits", "told", "code"),
    [
        (VideoLimits(max_seconds=3.5), r"4 s long, at most \d s are allowed", "video_too_long"),
        (VideoLimits(max_pixels=128 * 31), "frames of 128 x 32 exceed the limit of 3,968 pixels", "video_too_many_pixels"),
        (VideoLimits(max_decoded=10), "more than 10 frames", "video_too_long"),
    ],
    ids=["seconds", "pixels", "decoded"],
)
def test_limits_inside_the_child(clip: Path, limits: VideoLimits, told: str, code: str):
    with pytest.raises(InputError, match=told) as caught:
        video._decode(str(clip), {"count": 8}, limits)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("limits", "told", "code"),
    [
        (VideoLimits(max_bytes=1000), "at most 1,000 are allowed", "video_too_large"),
        (VideoLimits(max_pixels=128 * 31), "exceed the limit of 3,968 pixels", "video_too_many_pixels"),
        (VideoLimits(seconds_to_decode=0.01), r"longer than 0\.01 s", "video_too_slow"),
        (VideoLimits(memory=32 << 20), "decoder died", "video_damaged"),
    ],
    ids=["bytes", "pixels", "clock", "memory"],
)
def test_limits_around_the_child(clip: Path, limits: VideoLimits, told: str, code: str):
    with pytest.raises(InputError, match=told) as caught:
        sample_frames(clip, 8, limits=limits)
    assert (caught.value.code, caught.value.message.startswith(str(clip))) == (code, True)


def test_cut_and_damaged_files(clip: Path, tmp_path: Path):
    data = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    for cut in (0, 406, len(data) // 2):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match="not a video that can be read") as caught:
            sample_frames(path)
        assert caught.value.message.isprintable()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    with pytest.raises(InputError, match=r"cut\.mp4: "):
        sample_frames(path)


def test_a_crash_of_the_decoder_is_an_error_like_others(clip: Path, tmp_path: Path, monkeypatch):
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(video.sys, "executable", str(crashing))
    with pytest.raises(InputError, match=r"decoder died \(signal 11\)") as caught:
        sample_frames(clip)
    assert caught.value.code == "video_damaged"


def test_playlists_and_other_files_are_not_followed(clip: Path, tmp_path: Path):
    """Formats that name other files or addresses would read what the user did not point at."""
    playlists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{clip}\n#EXT-X-ENDLIST\n",
        "b.mp4": f"ffconcat version 1.0\nfile '{clip}'\n",
        "c.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "d.avi": "not a video",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="not a video that can be read"):
            video._decode(str(tmp_path / name), {"count": 2}, VideoLimits())


def test_sound_alone(tmp_path: Path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="no picture track"):
        video._decode(str(path), {"count": 2}, VideoLimits())


def test_names(tmp_path: Path, monkeypatch, clip: Path):
    """FFmpeg gives meaning to some names, the working directory may hold a module of the decoder's name, file names may be any bytes."""
    odd = tmp_path / os.fsdecode(b"concat:a|b\n%03d \xff.mp4")
    odd.write_bytes(clip.read_bytes())
    (tmp_path / "av.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    assert len(sample_frames(odd.name, 2)) == 2
    for path, told in ((tmp_path, "not a file"), (tmp_path / "no.mp4", "no such file"), (tmp_path / "a\n.mp4", r"a\\n.mp4: no such file")):
        with pytest.raises(InputError, match=told):
            sample_frames(path)


def test_without_pyav(clip: Path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs PyAV") as caught:
        sample_frames(clip)
    assert caught.value.hint == 'pip install "paligemma[video]"'


def test_no_frames_asked(clip: Path):
    with pytest.raises(UsageError, match="0 frames"):
        sample_frames(clip, 0)
