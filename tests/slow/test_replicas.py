"""Two replicas of the bundled model and an index on Ray Serve: both answer, and when one is killed at work nothing is lost."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from paligemma.checkpoint.finding import BUNDLED
from paligemma.cli import main
from paligemma.server.settings import Limits, Settings
from tests.encoders import their_folder, with_vocabulary
from tests.tiny import TOKENIZER_VOCAB, tiny_tokenizer

pytest.importorskip("lancedb")
ray = pytest.importorskip("ray")
serve = pytest.importorskip("ray.serve")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PORT = 8123
PICTURE = base64.b64encode((BUNDLED / "demo" / "objects1.png").read_bytes()).decode()


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> str:
    """Of the demo's pictures, by an encoder of random weights."""
    folder = tmp_path_factory.mktemp("index")
    encoder = their_folder(folder / "encoder", with_vocabulary(TOKENIZER_VOCAB))
    tiny_tokenizer().save(encoder)
    assert main(["index", str(BUNDLED / "demo"), "--encoder", str(encoder), "--out", str(folder / "index")]) == 0
    return str(folder / "index")


@pytest.fixture(scope="module")
def replicas(index):
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from paligemma.server.replicas import application

    ray.init(num_cpus=4, include_dashboard=False, _node_ip_address="127.0.0.1", object_store_memory=100 << 20, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    settings = Settings(no_auth=True, limits=Limits(waiting_each=64, waiting=64))
    serve.run(application(settings=settings, index=index, least=2, most=2, cpus=0.5))
    yield
    serve.shutdown()
    ray.shutdown()


def ask(task: str, **fields) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    try:
        connection.request("POST", f"/v1/{task}", json.dumps({"image": PICTURE, **fields}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def processes() -> set[int]:
    """Those of replicas."""
    found = set()
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if ":Replica" in " ".join(one.cmdline()) and one.status() != psutil.STATUS_ZOMBIE:
                found.add(one.pid)
    return found


def color() -> str:
    status, body = ask("ask", question="what color is the heart?")
    return json.loads(body)["result"]["text"] if status == 200 else f"{status} {body[:300]}"


def test_they_search(replicas):
    for _ in range(4):
        status, body = ask("search", top=1, pictures=False)
        assert (status, [one["path"] for one in json.loads(body)["results"]]) == (200, ["objects1.png"])


def test_both_answer_and_one_may_die(replicas):
    assert color() == "green"
    status, body = ask("caption", stream=True)
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")
    status, body = ask("ask")
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_value")

    before = processes()
    assert len(before) == 2, before
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(color) for _ in range(240)]
        while sum(one.done() for one in asked) < 60:
            time.sleep(0.01)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        answers = [one.result() for one in asked]
    assert set(answers) == {"green"}, set(answers)
    end = time.monotonic() + 120
    assert victim not in processes()
    while len(processes()) < 2:  # a new one comes in its place
        assert time.monotonic() < end
        time.sleep(0.5)
    assert color() == "green"
