"""The server's campaigns at their smallest size, and that they can fail."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from paligemma.server.refusals import Refused
from tests.server.campaigns import __main__ as command
from tests.server.campaigns import prompts, soak, wire
from tests.server.campaigns.frame import Trials, run_campaign
from tests.server.campaigns.journal import Journal, digest


@pytest.mark.parametrize(("name", "least"), [("C5", 10_000), ("C8", 600), ("C10", 40)])
def test_nothing_is_found(name: str, least: int, monkeypatch):
    if name == "C10":
        monkeypatch.setattr(command.find(name), "WITHIN", 10.0)  # in how many seconds is measured where nothing else runs
    result = run_campaign(command.find(name), "push", 0)
    assert not result.failures, "\n".join(result.failures.values())
    assert result.cases >= least


def test_nothing_is_found_by_requests_from_the_description():
    """A part of them: most of the time goes into making them up."""
    result = run_campaign(command.find("C7"), "push", 0, limit=6)
    assert not result.failures, "\n".join(result.failures.values())
    assert result.cases >= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["C7", "C9", "C11", "C22"])
def test_nothing_is_found_in_minutes(name: str):
    result = run_campaign(command.find(name), "push", 0)
    assert not result.failures, "\n".join(result.failures.values())


# They can fail


def test_a_control_token_in_a_prompt_is_found_out(monkeypatch):
    with prompts.stage() as stage:
        encode = stage.tokenizer.encode
        monkeypatch.setattr(
            stage.tokenizer, "encode", lambda text, **how: encode(text, **how) + [stage.tokenizer.eos_id] * ("<eos>" in text)
        )
        with pytest.raises(AssertionError, match="a control token"):
            prompts.check(stage, 0, random.Random(0))


def test_a_failure_in_an_answer_is_found_out():
    answer = b"HTTP/1.1 500 no\r\nx-request-id: a\r\ncontent-length: 2\r\n\r\n{}"
    with pytest.raises(AssertionError, match="500"):
        wire._judge(answer, b"")
    with pytest.raises(AssertionError, match="a leak"):
        wire._judge(answer.replace(b"500", b"400").replace(b"2\r\n\r\n{}", b"9\r\n\r\n/home/you"), b"")
    with pytest.raises(AssertionError, match="cut short"):
        wire._judge(answer.replace(b"500", b"400").replace(b"{}", b"{"), b"")


@pytest.mark.parametrize("length", [b"Content-Length: 20", b"Transfer-Encoding: chunked"])
def test_a_request_is_hidden_where_a_whole_body_holds_it(length: bytes):
    body = b"GET /hidden mark 1.1"
    request = b"POST / HTTP/1.1\r\n" + length + b"\r\n\r\n" + body
    assert wire._is_hidden(request, "mark", length, body)
    assert not wire._is_hidden(request.replace(b"/hidden", b"/hidden" + b"a" * 20), "mark", length, body)
    assert not wire._is_hidden(request.replace(length, b"A: b"), "mark", length, body)
    assert not wire._is_hidden(request.replace(b"1.1\r\n", b"1.1\r\n\r\n", 1), "mark", length, body)


def test_a_refusal_that_says_why_is_found_out(monkeypatch):
    async def telling(value: str, where: str, *rest: Any) -> bytes:
        raise Refused(400, f"{value[:20]} may not be fetched", "image_url_not_allowed", where)

    monkeypatch.setattr(wire, "read_picture", telling)
    with wire.stage() as stage, pytest.raises(AssertionError, match="the refusals differ"):
        wire.check(stage, ("addresses", "asked for"), random.Random(0))


def test_an_opened_socket_is_found_out(monkeypatch):
    monkeypatch.setattr("paligemma.download._is_public", lambda address: True)
    with wire.stage() as stage, pytest.raises(AssertionError, match="opened a socket"):
        wire.check(stage, ("addresses", "resolved to"), random.Random(0))


def test_work_that_goes_on_without_its_client_is_found_out(monkeypatch):
    async def deaf(request: Any, work: Any) -> Any:
        answered = await work
        await asyncio.sleep(3)
        return answered

    leaving = command.find("C10")
    monkeypatch.setattr("paligemma.server.native.while_there", deaf)
    monkeypatch.setattr(leaving, "WITHIN", 0.5)
    with leaving.stage() as stage, pytest.raises(AssertionError, match="left over"):
        leaving.check(stage, ("steps", False), random.Random(0))


def test_the_median_slope_does_not_mind_a_few():
    assert soak.theil_sen([(second, 2.0 * second + 1000.0 * (second % 10 == 0)) for second in range(100)]) == pytest.approx(2.0, abs=0.2)
    assert soak.theil_sen([]) == 0.0


# The command


@contextmanager
def nothing():
    yield None


def toy(check: Any) -> Any:
    return SimpleNamespace(NAME="C0", TITLE="toy", points=lambda tier, rng: [rng.random() for _ in range(30)], stage=nothing, check=check)


def test_a_failing_case_is_told_with_the_command_that_replays_it(monkeypatch, capsys, tmp_path):
    def check(stage: None, point: float, rng: random.Random) -> Trials:
        assert point < 0.9, "too large"
        return Trials(2, {"seen": point})

    monkeypatch.setattr(command, "find", lambda name: toy(check))
    assert command.main(["C8", "--seed", "3", "--json", str(tmp_path / "found.json")]) == 1
    printed = capsys.readouterr().out
    replay = next(line for line in printed.splitlines() if line.startswith("replay: "))
    number = int(replay.rpartition(" ")[2])
    assert "too large" in printed
    found = json.loads((tmp_path / "found.json").read_text())[0]
    assert found["cases"] == 2 * (30 - len(found["failures"])) + len(found["failures"])
    assert found["bound"] is None
    assert command.main(["C8", "--seed", "3", "--case", str(number)]) == 1
    assert command.main(["C8", "--seed", "3", "--case", str(next(n for n in range(30) if str(n) not in found["failures"]))]) == 0


def test_a_run_that_was_broken_off_goes_on(tmp_path):
    """What failed is tried again, and everything where the code is another."""
    path, seen = tmp_path / "journal.jsonl", []

    def check(stage: None, point: float, rng: random.Random) -> Trials:
        seen.append(point)
        assert point != seen[0] or len(seen) > 30, "the first one fails once"
        return Trials(2, {"points": 30})

    first = run_campaign(toy(check), "push", 0, journal=Journal(path, "a"))
    assert (first.cases, len(first.failures), len(seen)) == (59, 1, 30)
    with path.open("a") as file:
        file.write('{"code": "a", "ca')  # killed as it wrote
    again = run_campaign(toy(check), "push", 0, journal=Journal(path, "a"))
    assert (again.cases, again.failures, again.measured, len(seen)) == (60, {}, {"points": 30}, 31)
    assert run_campaign(toy(check), "push", 0, journal=Journal(path, "a")).cases == 60
    assert len(seen) == 31
    run_campaign(toy(check), "push", 0, journal=Journal(path, "b"))
    assert len(seen) == 61
    (tmp_path / "a.py").write_text("1")
    before = digest([tmp_path])
    (tmp_path / "a.py").write_text("2")
    assert digest([tmp_path]) != before


def test_the_bound_is_of_three_in_all():
    result = run_campaign(toy(lambda *_: Trials(10)), "push", 0)
    assert (result.cases, result.bound) == (300, 0.01)
    assert run_campaign(toy(lambda *_: None), "push", 0, limit=5).cases == 5


def test_every_campaign_has_cases_of_every_size():
    for name in command.CAMPAIGNS:
        campaign = command.find(name)
        counts = [len(campaign.points(tier, random.Random(0))) for tier in ("push", "ci", "release")]
        assert counts == sorted(counts)
        assert counts[0] > 0
