"""C22: each guard of the server is taken out, one at a time, and the test that is there for it must fail.

python -m tests.server.campaigns C22 --tier release        all of them
python -m tests.server.campaigns.guards "Host header"      one, with what the test says
"""

from __future__ import annotations

import importlib
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
NAME = "C22"
TITLE = "guards taken out"
SIZES = {"push": 2, "ci": 8}
FAILED = 1
"""Exit code of pytest where tests failed; another one says that they could not be run."""


@dataclass(frozen=True)
class Guard:
    """`where`: module:name of the guard. `instead`: what takes its place. `test`: what notices."""

    where: str
    instead: Any
    test: str

    def take_out(self) -> None:
        module, _, path = self.where.partition(":")
        *parents, name = path.split(".")
        place: Any = importlib.import_module(f"paligemma.{module}")
        for parent in parents:
            place = getattr(place, parent)
        assert hasattr(place, name), self.where
        setattr(place, name, self.instead)


def _nothing(*arguments: Any, **options: Any) -> None:
    """Instead of a check."""


async def _asynchronous_nothing(*arguments: Any, **options: Any) -> None:
    """Instead of a step that is waited for."""


def _true(*arguments: Any, **options: Any) -> bool:
    return True


def _false(*arguments: Any, **options: Any) -> bool:
    return False


async def _deaf(request: Any, work: Any) -> Any:
    """Work goes on whether its client is there or not."""
    return await work


def _anybody(scheduler: Any, client: str) -> Any:
    """A place for everyone."""
    from paligemma.server.scheduler import Place

    scheduler._entered[client] = scheduler._entered.get(client, 0) + 1
    return Place(scheduler, client)


def _any_connection(protocol: Any, transport: Any) -> None:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    H11Protocol.connection_made(protocol, transport)


_is_below = Path.is_relative_to


def _below_media(path: Path, other: Any) -> bool:
    """As it is, but that everything lies below a folder called media."""
    return Path(other).name == "media" or _is_below(path, other)


_JSON = "test_strict_json.py::test_what_is_refused"
_FETCHED = "test_media.py::test_what_may_not_be_fetched"
_LENGTHS = "test_protocol.py::test_a_body_of_no_certain_length"
GUARDS: dict[str, Guard] = {
    "key on other addresses": Guard("server.settings:is_loopback", _true, "test_settings.py::test_others_need_one"),
    "Host header": Guard("server.gate:Gate.check_host", _nothing, "test_gate.py::test_other_names_are_refused"),
    "Origin header": Guard("server.gate:Gate.check_origin", _nothing, "test_gate.py::test_pages_of_other_sites"),
    "key": Guard("server.gate:Gate.check_key", _nothing, "test_gate.py::test_no_key_no_entry"),
    "plain paths": Guard("server.gate:_is_plain", _true, "test_gate.py::test_ways_around_a_path"),
    "size of headers": Guard("server.gate:Gate.check_size", _nothing, "test_gate.py::test_long_headers_and_addresses"),
    "kind of body": Guard("server.gate:Gate.check_body", _nothing, "test_gate.py::test_bodies_of_other_kinds"),
    "announced size": Guard("server.gate:Gate.check_body", _nothing, "test_gate.py::test_a_body_that_is_announced_too_large_is_not_read"),
    "refusals are ours": Guard("server.gate:_Exchange._instead", lambda _, refusal: refusal, "test_gate.py::test_an_endless_body_ends"),
    "paths in messages": Guard(
        "server.refusals:_PRIVATE", re.compile("(?!)"), "test_refusals.py::test_what_tells_of_the_machine_is_cut_out"
    ),
    "controls in messages": Guard("server.refusals:printable", str, "test_refusals.py::test_messages_are_short_and_printable"),
    "folded headers": Guard("server.protocol:_folded", _false, _LENGTHS),
    "bodies of two lengths": Guard("server.protocol:_check", _nothing, _LENGTHS),
    "time for headers": Guard("server.protocol:_Guarded._watch_headers", _nothing, "test_protocol.py::test_slow_headers"),
    "pace of readers": Guard("server.protocol:_Guarded._watch_writing", _nothing, "test_protocol.py::test_a_client_that_does_not_read"),
    "connections": Guard(
        "server.protocol:_Guarded.connection_made", _any_connection, "test_protocol.py::test_connections_beyond_the_limit"
    ),
    "depth of JSON": Guard("server.strict_json:_measure", _nothing, _JSON),
    "keys twice": Guard("server.strict_json:_object", dict, _JSON),
    "NaN": Guard("server.strict_json:_constant", float, _JSON),
    "digits": Guard("server.strict_json:_integer", int, _JSON),
    "halves of pairs": Guard("server.strict_json:_check_text", _nothing, _JSON),
    "number of pictures": Guard("server.media:Budget.take_image", _nothing, "test_media.py::test_pictures_are_counted"),
    "bytes of pictures": Guard("server.media:Budget.take_bytes", _nothing, "test_media.py::test_lengths_are_looked_at_before_decoding"),
    "pixels": Guard("server.media:Budget.take_pixels", _nothing, "test_media.py::test_pixels_are_added_up"),
    "hosts of pictures": Guard("server.media:_HTTPS", re.compile(r"https://(?:[^/@]*@)?([^/:?#]*).*", re.DOTALL), _FETCHED),
    "time of refusals": Guard("server.media:_REFUSAL_SECONDS", 0.0, _FETCHED),
    "files in the folder": Guard("server.media:Path.is_relative_to", _below_media, "test_media.py::test_files_outside_and_what_is_no_file"),
    "public addresses": Guard("download:_is_public", _true, "../test_download.py::test_private_addresses"),
    "secrets of the parent": Guard(
        "server.decoding:_environment", lambda: dict(os.environ), "test_decoding.py::test_secrets_are_not_handed_down"
    ),
    "half-asked decoders": Guard(
        "server.decoding:Decoders._discard",
        _asynchronous_nothing,
        "test_decoding.py::test_a_client_that_leaves_while_its_picture_is_decoded",
    ),
    "places in the queue": Guard(
        "server.scheduler:Scheduler.enter", _anybody, "test_scheduler.py::test_who_comes_to_a_full_queue_is_refused_at_once"
    ),
    "clients that left": Guard("server.native:while_there", _deaf, "test_service.py::test_who_leaves_gives_everything_back"),
    "health": Guard("server.service:Service.healthy", True, "test_service.py::test_the_engines_health_is_the_servers"),
}


def points(tier: str, rng: random.Random) -> list[str]:
    """Names; other ones with another seed, where not all."""
    return rng.sample(list(GUARDS), SIZES.get(tier, len(GUARDS)))


@contextmanager
def stage() -> Iterator[None]:
    yield None


def check(stage: None, name: str, rng: random.Random) -> None:
    command = [sys.executable, "-m", __name__, name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == FAILED, f"{GUARDS[name].test} does not miss it (pytest ends with {done.returncode})\n{done.stdout[-1000:]}"


def main(name: str) -> int:
    import pytest

    guard = GUARDS[name]
    guard.take_out()
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "server" / guard.test)]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
