"""`python -m bench.serving`: the server under load, with the bundled model, over HTTP, the load from a process of its own.

    many at a time      16 clients, answers written side by side (--rows 16) against one after the other (--rows 1)
    how long            at half of what it can, at all of it, at twice, and at ten times for a minute
    a peer              transformers' `generate` behind FastAPI, the same weights, 16 clients, and one for the first token

Questions are those of many clients, so that the share of one is not what is measured, and about more pictures than a server keeps the image
tokens of: every answer begins with the picture. Captions and short answers in turn; rows are compared for each of the two apart as well:
a picture takes as long to read beside others as alone, only writing is shared.
"""

from __future__ import annotations

import argparse
import base64
import functools
import io
import json
import os
import platform
import secrets
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from paligemma.checkpoint.finding import BUNDLED

from .served import Server, served
from .traffic import Outcome, Plan, answered, drive, percentile, rate, recovery

MODEL = BUNDLED / "nano-112"
CLIENTS = 16
ROUNDS = 3
TARGETS = {"batching": 3.0, "peer": 1.5}
ALLOWED = {200, 429, 503}
"""What a server may answer that has more to do than it can."""
REFUSAL_SECONDS = 0.1
RECOVERY_SECONDS = 2.0


NAMES = ("objects1", "objects2", "objects3", "colours1", "twins1", "twins2")
CAPTIONS = ("caption en", "caption de")
SHORT = ("answer en how many objects are there?", "answer en what color is the heart?")
BOTH = (CAPTIONS[0], SHORT[0], CAPTIONS[1], SHORT[1])
"""As the model reads them: both servers are asked for exactly these words."""
MAX_TOKENS = 32
Questions = list[tuple[str, dict[str, Any]]]


@functools.cache
def pictures() -> tuple[str, ...]:
    """48 different ones, as data: URLs: six, turned and mirrored."""
    found = []
    for name in NAMES:
        picture = Image.open(BUNDLED / "demo" / f"{name}.png").convert("RGB")
        found += [_written(picture), *(_written(picture.transpose(way)) for way in Image.Transpose)]
    return tuple(found)


def _written(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def asked(prompts: Sequence[str] = BOTH) -> list[tuple[str, str]]:
    """(picture, words)"""
    return [(picture, prompts[number % len(prompts)]) for number, picture in enumerate(pictures())]


def chats(prompts: Sequence[str] = BOTH, *, stream: bool = False) -> Questions:
    """Chat completions, which the peer knows too."""
    found: Questions = []
    for picture, text in asked(prompts):
        content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": text}]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": MAX_TOKENS, "stream": stream, "raw": True}
        found.append(("/v1/chat/completions", body))
    return found


def streams() -> Questions:
    """The same, where nothing is sent before the first token: OpenAI's streams begin with a role."""
    return [("/v1/run", {"image": picture, "prompt": text, "max_tokens": MAX_TOKENS, "stream": True}) for picture, text in asked()]


@dataclass(frozen=True)
class Asked:
    """A running server, and keys of many clients where it asks for some."""

    server: Server
    keys: Sequence[str] = ()

    def load(self, seconds: float, prompts: Sequence[str] = BOTH, **how: Any) -> list[Outcome]:
        return drive(Plan(self.server.url, chats(prompts), seconds, keys=self.keys, **how))

    def answers(self, seconds: float, prompts: Sequence[str] = BOTH) -> float:
        """A second, at 16 clients."""
        return rate(self.load(seconds, prompts, clients=CLIENTS), seconds)

    def warm(self) -> None:
        self.load(3, clients=4)


def keys(count: int = 64) -> list[str]:
    return [secrets.token_hex(16) for _ in range(count)]


def options(keys: Sequence[str]) -> list[str]:
    """Of the command, on which every key is one client."""
    return [word for key in keys for word in ("--api-key", key)]


@dataclass(frozen=True)
class Row:
    what: str
    value: str
    target: str = ""


def in_turn(seconds: float, *loads: Callable[[float], float]) -> list[tuple[float, ...]]:
    """What each load came to, round by round: what else the machine does meanwhile falls on all of them."""
    return [tuple(load(seconds / ROUNDS) for load in loads) for _ in range(ROUNDS)]


def compared(what: str, show: str, rounds: Sequence[tuple[float, ...]], target: float, *, small: bool = False) -> list[Row]:
    """Two rows: both, and how much better the first is; medians of all rounds. `small`: less is better."""
    ratios = [theirs / ours if small else ours / theirs for ours, theirs in rounds]
    middle = statistics.median(ratios)
    both = ", ".join(show.format(statistics.median(one)) for one in zip(*rounds, strict=True))
    return [
        Row(what, both),
        Row("ratio", f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", f"{target}{_verdict(middle >= target)}"),
    ]


def measure_batching(seconds: float, model: Path) -> list[Row]:
    """Answers a second at 16 clients: 16 rows, one row."""
    own, rows = keys(), list[Row]()
    both = "--model", str(model), *options(own)
    with served("--rows", str(CLIENTS), *both) as many, served("--rows", "1", *both) as one:
        for server in (many, one):
            Asked(server, own).warm()
        for what, prompts in (("captions", CAPTIONS), ("short answers", SHORT), ("both", BOTH)):
            loads = (functools.partial(Asked(server, own).answers, prompts=prompts) for server in (many, one))
            title = f"16 clients, {what}, answers/s: {CLIENTS} rows, 1 row"
            rows += compared(title, "{:.1f}", in_turn(seconds, *loads), TARGETS["batching"])
    return rows


def measure_load(ours: Asked, seconds: float, overload: float) -> list[Row]:
    """Latency at shares of capacity, then ten times of it."""
    capacity = ours.answers(seconds)
    rows = [Row("capacity, 16 clients", f"{capacity:.1f} answers/s")]
    for factor in (0.5, 1.0, 2.0):
        outcomes = ours.load(seconds, rate=factor * capacity)
        rows.append(Row(f"{factor:g} times capacity: p50, p99 of answers", _latency(outcomes)))
        rows.append(Row(f"{factor:g} times capacity: statuses", _statuses(outcomes)))
    outcomes = ours.load(overload, rate=10 * capacity)
    after = recovery(outcomes, overload)
    refused = [one.seconds for one in outcomes if one.status in (429, 503)]
    strange = {one.status for one in outcomes} - ALLOWED
    rows += [
        Row(f"10 times capacity for {overload:g} s: statuses", _statuses(outcomes), "only 200, 429, 503" + _verdict(not strange)),
        Row("10 times capacity: answers/s, share of capacity", f"{rate(outcomes, overload) / max(capacity, 1e-9):.0%}"),
    ]
    if refused:
        late = percentile(refused, 0.99)
        rows.append(
            Row(
                "10 times capacity: p99 of refusals",
                f"{late * 1000:.0f} ms",
                f"{REFUSAL_SECONDS * 1000:.0f} ms" + _verdict(late < REFUSAL_SECONDS),
            )
        )
    rows.append(Row("first answer after it", f"{after:.2f} s", f"{RECOVERY_SECONDS:g} s" + _verdict(after < RECOVERY_SECONDS)))
    return rows


def measure_peer(seconds: float) -> list[Row]:
    own = keys()
    with served(*options(own)) as server, served(str(MODEL), command=(sys.executable, "-m", "bench.serving_peer")) as peer:
        Asked(server, own).warm()
        Asked(peer).warm()
        said, repeated = _answers(server, own[0]), _answers(peer)
        rates = in_turn(seconds, Asked(server, own).answers, Asked(peer).answers)
        firsts = in_turn(seconds, lambda s: first_token(server, streams(), s, own), lambda s: first_token(peer, chats(stream=True), s))
    same = sum(a == b for a, b in zip(said, repeated, strict=True))
    return [
        Row("answers in the same words", f"{same} of {len(said)}"),
        *compared("16 clients, answers/s: ours, transformers' server", "{:.1f}", rates, TARGETS["peer"]),
        *compared("first token, one client, ms: ours, theirs", "{:.0f}", firsts, TARGETS["peer"], small=True),
    ]


def first_token(server: Server, asked: Questions, seconds: float, keys: Sequence[str] = ()) -> float:
    """Median milliseconds of one client."""
    outcomes = drive(Plan(server.url, asked, seconds, clients=1, keys=keys))
    return statistics.median(one.first for one in answered(outcomes)) * 1000


def _answers(server: Server, key: str | None = None) -> list[str]:
    return [json.loads(server.ask("POST", path, body, key)[1])["choices"][0]["message"]["content"] for path, body in chats()]


def _latency(outcomes: Sequence[Outcome]) -> str:
    times = [one.seconds for one in answered(outcomes)]
    return f"{percentile(times, 0.5) * 1000:.0f} ms, {percentile(times, 0.99) * 1000:.0f} ms" if times else "-"


def _statuses(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(f"{status or 'broken'}: {count:,}" for status, count in sorted(Counter(one.status for one in outcomes).items()))


def _verdict(reached: bool) -> str:
    return " (reached)" if reached else " (missed)"


def table(rows: Sequence[Row]) -> str:
    lines = ["| | measured | target |", "|---|---|---|", *(f"| {row.what} | {row.value} | {row.target} |" for row in rows)]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m bench.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of each load")
    parser.add_argument("--overload", type=float, default=60, help="seconds of ten times the capacity")
    parser.add_argument("--only", choices=("batching", "load", "peer"), action="append")
    parser.add_argument("--model", type=Path, default=MODEL, help="a pack of the bundled model; the peer's rows are of the model itself")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    given = parser.parse_args(arguments)
    busy = os.getloadavg()[0]
    parts, rows = given.only or ("batching", "load", "peer"), list[Row]()
    if "batching" in parts:
        rows += measure_batching(given.seconds, given.model)
    if "load" in parts:
        own = keys()
        with served("--model", str(given.model), *options(own)) as server:
            ours = Asked(server, own)
            ours.warm()
            rows += measure_load(ours, given.seconds, given.overload)
    if "peer" in parts:
        rows += measure_peer(given.seconds)
    print(f"{platform.machine()}, Python {platform.python_version()}, {given.seconds:g} s each; load of the machine before: {busy:.2f}\n")
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
