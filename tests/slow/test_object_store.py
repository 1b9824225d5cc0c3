"""An index on an object store: a server that speaks S3 on this machine (`moto_server` of the package moto[server],
in any environment whose programs are on PATH: its pins are not ours), by the code that writes folders."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from paligemma.index.query import Query, search
from paligemma.index.store import Index, Writer
from tests.index.making import COLOURS, ColourEncoder, build, entry, facts, held, paint

pytest.importorskip("lancedb")
SERVER = shutil.which("moto_server")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.skipif(SERVER is None, reason="no moto_server here")]


@pytest.fixture(scope="module")
def server():
    """The address of an S3, a process of its own."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    process = subprocess.Popen([str(SERVER), "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    given = {"ACCESS_KEY_ID": "testing", "SECRET_ACCESS_KEY": "testing", "REGION": "us-east-1", "ENDPOINT": server, "ALLOW_HTTP": "true"}
    for name, value in given.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    name = f"album-{time.time_ns()}"
    urllib.request.urlopen(urllib.request.Request(f"{server}/{name}", method="PUT"), timeout=20).close()
    return f"s3://{name}/index"


@pytest.fixture
def album(tmp_path):
    for number, colour in enumerate(COLOURS):
        paint(tmp_path / "album" / f"{number}.png", colour)
    return tmp_path / "album"


def test_made_renewed_and_searched(album, bucket):
    assert build(album, bucket).counts == {"unchanged": 0, "added": 8, "removed": 0}
    reader = Index.open(bucket)
    (album / "0.png").rename(album / "moved.png")
    assert build(album, bucket).counts == {"unchanged": 7, "moved": 1, "removed": 0}
    assert [hit.entry.path for hit in search(reader, Query("red"), ColourEncoder(), 1)] == ["0.png"], "a reader stays with its version"
    reader.refresh()
    assert [hit.entry.path for hit in search(reader, Query("red"), ColourEncoder(), 1)] == ["moved.png"]


def test_the_command(album, bucket):
    done = subprocess.run([sys.executable, "-m", "paligemma", "index", str(album), "--out", bucket], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{bucket}: 8 pictures (8 added)\n"), done.stderr
    done = subprocess.run([sys.executable, "-m", "paligemma", "search", "a fish", "--index", bucket], capture_output=True, text=True)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 8), done.stderr


def test_what_two_writers_enter_twice_is_mended(album, bucket):
    """There is no lock: both of two that begin together add what is new."""
    build(album, bucket)
    index = Index.open(bucket)
    writer = Writer(index.table, bucket, facts(album))
    writer.add([entry(1, id="twice", path="1.png", digest=held(bucket)["1.png"].digest)])
    assert Index.open(bucket).count() == 9
    build(album, bucket)
    assert held(bucket).keys() == {f"{number}.png" for number in range(8)}
    assert Index.open(bucket).count() == 8
