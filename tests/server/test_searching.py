"""/v1/search: an index over HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from paligemma.errors import CheckpointError
from paligemma.index.entries import Facts
from paligemma.index.store import writing
from paligemma.server import searching
from paligemma.server.app import build_app
from paligemma.server.refusals import Refused
from paligemma.server.searching import Collection, SearchBody
from paligemma.server.service import Service
from paligemma.server.settings import Settings
from tests.index.making import ColourEncoder, build, paint
from tests.server.conftest import Served, serving

pytest.importorskip("lancedb")


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("search") / "album"
    for name in ("red", "green", "blue"):
        paint(root / f"{name}.png", name, size=(400, 200))
    return root


@pytest.fixture(scope="module")
def index(album) -> str:
    build(album, album.parent / "index")
    return str(album.parent / "index")


@pytest.fixture(scope="module")
def served(index, predictor) -> Iterator[Served]:
    settings = Settings()
    service = Service(predictor, settings, name="nano-112")
    app = build_app(service, collection=Collection(index, ColourEncoder(), settings))
    with serving(app, settings, service.metrics.seen) as running:
        yield running


def ask(served: Served, **body) -> list[dict]:
    reply = served.ask("POST", "/v1/search", json.dumps(body).encode())
    assert reply.status == 200, reply.body
    return reply.json()["results"]


def png(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def test_words_and_pictures(served, album):
    found = ask(served, words="green", top=2)
    assert [len(found), found[0]["path"]] == [2, "green.png"]
    head, _, data = found[0]["picture"].partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert max(picture.size) == 320
    assert found[0]["alt"] == "picture green.png"
    assert "picture" not in ask(served, words="green", pictures=False)[0]
    assert ask(served, image=png(album / "blue.png"), top=1)[0]["path"] == "blue.png"
    assert ask(served, has=[{"label": "dog"}]) == []


def test_it_sees_what_comes_later(served, album, index):
    paint(album / "yellow.png", "yellow")
    build(album, index)
    assert ask(served, words="yellow", top=1)[0]["path"] == "yellow.png"
    assert served.ask("GET", "/v1/search").json() == {"pictures": 4, "captions": 0, "text": 0, "objects": 0}


@pytest.mark.parametrize(
    "body",
    [
        {}, {"words": ""}, {"words": 3}, {"words": "red", "top": 0}, {"words": "red", "top": 1000}, {"words": "red", "where": "1 = 1"},
        {"words": "x" * 5000}, {"has": [{"label": "dog", "count": "many"}]}, {"has": [{"label": ""}]},
        {"image": "data:image/png;base64,AAAA"},
        {"image": "file:///etc/passwd"}, {"has": [{"label": "dog"}] * 17},
    ],
)  # fmt: skip
def test_what_cannot_be_asked(served, body):
    reply = served.ask("POST", "/v1/search", json.dumps(body).encode())
    assert reply.status == 400
    reply.error()


def test_the_page_and_the_description(served):
    assert b"Search pictures" in served.ask("GET", "/page/search.html").body
    assert served.ask("GET", "/openapi.json").json()["paths"]["/v1/search"].keys() == {"get", "post"}


def test_a_server_without_an_index_has_no_search(nano: Served, served: Served):
    assert nano.ask("GET", "/v1/search").status == 404
    for server, there in ((nano, False), (served, True)):
        assert server.ask("GET", "/v1/models").json()["data"][0]["paligemma"]["search"] is there


def test_another_encoder_is_refused_at_once(index):
    class Other(ColourEncoder):
        name = "colours-2"

    with pytest.raises(CheckpointError, match="not by colours-2"):
        Collection(index, Other(), Settings())


def test_an_index_that_another_encoder_made_anew_is_not_searched_with_this_one(album, tmp_path):
    index = str(tmp_path / "index")
    build(album, index)

    class Other(ColourEncoder):
        name = "colours-2"

    async def search_then() -> None:
        collection = Collection(index, ColourEncoder(), Settings())
        assert await collection.find(SearchBody(words="red", pictures=False))
        with writing(index, Facts(Other.name, Other.dimensions, "", str(album)), overwrite=True):
            pass
        with pytest.raises(CheckpointError, match="not by colours-1"):
            await collection.find(SearchBody(words="red", pictures=False))

    asyncio.run(asyncio.wait_for(search_then(), 20))


def test_so_many_wait_and_no_more(index, monkeypatch):
    monkeypatch.setattr(searching, "WAITING", 2)
    go_on = threading.Event()

    class Slow(ColourEncoder):
        def texts(self, texts):
            assert go_on.wait(10)
            return super().texts(texts)

    async def crowd() -> None:
        collection = Collection(index, Slow(), Settings())
        inside = [asyncio.create_task(collection.find(SearchBody(words="red", pictures=False))) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Refused) as refused:
            await collection.find(SearchBody(words="red", pictures=False))
        assert (refused.value.status, refused.value.code) == (429, "queue_full")
        go_on.set()
        assert all(await asyncio.gather(*inside))
        assert await collection.find(SearchBody(words="red", pictures=False))

    asyncio.run(asyncio.wait_for(crowd(), 20))


def test_a_search_that_nobody_waits_for_keeps_its_version(index, monkeypatch):
    begun, go_on, refreshed = threading.Event(), threading.Event(), []

    class Slow(ColourEncoder):
        def texts(self, texts):
            begun.set()
            assert go_on.wait(10)
            return super().texts(texts)

    async def leave() -> None:
        collection = Collection(index, Slow(), Settings())
        monkeypatch.setattr(collection.index, "refresh", lambda: refreshed.append(1))
        left = asyncio.create_task(collection.find(SearchBody(words="red", pictures=False)))
        assert await asyncio.to_thread(begun.wait, 10)
        left.cancel()
        others = [asyncio.create_task(one) for one in (collection.held(), collection.find(SearchBody(words="red", pictures=False)))]
        await asyncio.sleep(0.2)
        assert (len(refreshed), [one.done() for one in others]) == (1, [False, False]), "another version came under a search at work"
        go_on.set()
        held, found = await asyncio.gather(*others)
        assert (len(refreshed), held["pictures"] > 0, len(found) > 0) == (3, True, True)

    asyncio.run(asyncio.wait_for(leave(), 20))
