"""C15: checkpoints that rot: flipped bits, cut, missing, strange and foreign files, links, hints that lie. Found, set aside, said."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from paligemma.training.manifest import MANIFEST, folder_name

from .reference import Reference, events, whole_steps
from .trial import Plan, Running, other

NAME = "C15"
TITLE = "damaged checkpoints"
SIZES = {"push": 36, "ci": 360, "release": 10_000}

Point = tuple


def points(reference: Reference, tier: str, rng: random.Random) -> list[Point]:
    """(kind of damage, seed): one of each kind, then more bit flips and cuts, in the proportion 200 : 100 : 60."""
    each = [*HARM, *HARMLESS, "all"]
    chosen = list(each)
    while len(chosen) < SIZES[tier]:
        chosen.append(rng.choices(["bit", "cut", rng.choice(each)], weights=[200, 100, 60])[0])
    return [(kind, rng.randrange(1 << 30)) for kind in chosen[: SIZES[tier]]]


def check(reference: Reference, point: Point, rng: random.Random) -> None:
    kind, seed = point
    rng = random.Random(seed)
    with reference.trial() as run:
        shutil.copytree(_snapshot(reference), run, symlinks=True)
        whole = whole_steps(run)
        if kind == "all":
            _all_damaged(reference, run, whole, rng)
            return
        folder = run / folder_name(whole[-1])
        if kind in HARMLESS:
            HARMLESS[kind](run, rng)
            reference.finish(run)
            assert not [event for event in events(run) if event["kind"] == "fallback"], "a checkpoint that is whole was passed over"
            return
        named = HARM[kind](folder, reference, rng)
        assert whole_steps(run) == whole[:-1], f"{kind} in {named} was not noticed"
        done = reference.finish(run)
        assert done.last("resumed") == whole[-2]
        damaged = [event for event in events(run) if event["kind"] == "damaged"]
        assert len(damaged) == 1, f"I5: {len(damaged)} reports of damage"
        assert named in damaged[0]["message"], f"I5: {named} is not named: {damaged[0]['message']}"
        assert damaged[0]["message"] in done.stderr, "I5: nothing on stderr"
        assert [event["kind"] for event in events(run)].count("fallback") == 1, "I5: the fallback is not reported"
        assert os.path.lexists(run / "quarantine" / folder.name), "I7: the damaged one is not in quarantine"


def _snapshot(reference: Reference) -> Path:
    """A run that was cut off shortly before its end; made once."""
    run = reference.folder / "snapshot" / "run"
    if not run.exists():
        run.parent.mkdir()
        reference.start(run, Plan(incident="kill", at_step=reference.steps - 1)).end()
        reference.survived(run)
    return run


def _other(reference: Reference) -> Path:
    """The same, of another run."""
    run = reference.folder / "other" / "run"
    if not run.exists():
        run.parent.mkdir()
        Running(other(reference.trainer), run, Plan(incident="kill", at_step=reference.steps - 1)).end()
    return run


def _all_damaged(reference: Reference, run: Path, whole: list[int], rng: random.Random) -> None:
    for step in whole:
        _flip(run / folder_name(step), reference, rng)
    before = _tree(run)
    for _ in range(2):
        done = reference.start(run).end()
        assert done.code == 4, f"exit code {done.code}, expected 4\n{done.stderr}"
        assert _tree(run) == before, "I7: a checkpoint was moved or changed though none is whole"


def _tree(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file() and "step-" in str(path)}


# Damage to the newest checkpoint: does it, and returns what the report must name


def _flip(folder: Path, reference: Reference, rng: random.Random) -> str:
    path = rng.choice(sorted(folder.iterdir()))
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return path.name


def _cut(folder: Path, reference: Reference, rng: random.Random) -> str:
    path = rng.choice(sorted(folder.iterdir()))
    os.truncate(path, rng.randrange(path.stat().st_size))
    return path.name


def _grow(folder: Path, reference: Reference, rng: random.Random) -> str:
    path = rng.choice(sorted(folder.iterdir()))
    with path.open("ab") as file:
        file.write(bytes(rng.randint(1, 64)))
    return path.name


def _miss(folder: Path, reference: Reference, rng: random.Random) -> str:
    path = rng.choice(sorted(folder.iterdir()))
    path.unlink()
    return path.name


def _add(folder: Path, reference: Reference, rng: random.Random) -> str:
    path = folder / rng.choice(["notes.txt", "model-00002.safetensors", ".hidden"])
    path.write_bytes(b"x")
    return path.name


def _mix(folder: Path, reference: Reference, rng: random.Random) -> str:
    name = rng.choice(["model.safetensors", "optimizer.safetensors"])
    shutil.copy(_other(reference) / folder.name / name, folder / name)
    return name


def _mix_all_but_manifest(folder: Path, reference: Reference, rng: random.Random) -> str:
    manifest = (folder / MANIFEST).read_bytes()
    shutil.copytree(_other(reference) / folder.name, folder, dirs_exist_ok=True)
    (folder / MANIFEST).write_bytes(manifest)
    return "model.safetensors"


def _older(folder: Path, reference: Reference, rng: random.Random) -> str:
    """An older checkpoint under the newest one's name."""
    older = folder.parent / folder_name(whole_steps(folder.parent)[-2])
    shutil.rmtree(folder)
    shutil.copytree(older, folder)
    return MANIFEST


def _empty(folder: Path, reference: Reference, rng: random.Random) -> str:
    for path in folder.iterdir():
        path.unlink()
    return MANIFEST


def _file_instead(folder: Path, reference: Reference, rng: random.Random) -> str:
    shutil.rmtree(folder)
    folder.write_bytes(b"checkpoint")
    return folder.name


def _folder_instead(folder: Path, reference: Reference, rng: random.Random) -> str:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    return "model.safetensors"


def _linked_file(folder: Path, reference: Reference, rng: random.Random) -> str:
    """The very same bytes, but elsewhere: they may change there."""
    outside = folder.parent.parent / "outside.safetensors"
    os.rename(folder / "model.safetensors", outside)
    (folder / "model.safetensors").symlink_to(outside)
    return "model.safetensors"


def _linked_folder(folder: Path, reference: Reference, rng: random.Random) -> str:
    outside = folder.parent.parent / "outside"
    os.rename(folder, outside)
    folder.symlink_to(outside)
    return folder.name


def _pipe(folder: Path, reference: Reference, rng: random.Random) -> str:
    """Whoever opens it waits for ever."""
    (folder / "state.json").unlink()
    os.mkfifo(folder / "state.json")
    return "state.json"


def _long_manifest(folder: Path, reference: Reference, rng: random.Random) -> str:
    os.truncate(folder / MANIFEST, 1 << 34)
    return MANIFEST


def _deep_manifest(folder: Path, reference: Reference, rng: random.Random) -> str:
    (folder / MANIFEST).write_bytes(b"[" * 100_000)
    return MANIFEST


HARM: dict[str, Callable[[Path, Reference, random.Random], str]] = {
    "bit": _flip, "cut": _cut, "grown": _grow, "missing": _miss, "extra": _add, "foreign file": _mix,
    "foreign files": _mix_all_but_manifest, "older": _older, "empty": _empty, "file instead": _file_instead,
    "folder instead": _folder_instead, "linked file": _linked_file, "linked folder": _linked_folder, "pipe": _pipe,
    "long manifest": _long_manifest, "deep manifest": _deep_manifest,
}  # fmt: skip


# Damage that must not matter


def _write_hint(text: str) -> Callable[[Path, random.Random], None]:
    def write(run: Path, rng: random.Random) -> None:
        (run / "LATEST").write_text(text)

    return write


def _no_hint(run: Path, rng: random.Random) -> None:
    (run / "LATEST").unlink()


def _linked_hint(run: Path, rng: random.Random) -> None:
    (run / "LATEST").unlink()
    (run / "LATEST").symlink_to("/etc/passwd")


def _hint_folder(run: Path, rng: random.Random) -> None:
    (run / "LATEST").unlink()
    (run / "LATEST").mkdir()


def _flip_mark(run: Path, rng: random.Random) -> None:
    data = bytearray((run / "best.json").read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    (run / "best.json").write_bytes(data)


def _spoil_report(run: Path, rng: random.Random) -> None:
    (run / "run_report.json").write_bytes(b'{"events": [' + bytes(rng.randrange(40)))


def _leftovers(run: Path, rng: random.Random) -> None:
    (run / ".tmp-step-00000099-0" / "deep" / "er").mkdir(parents=True)
    (run / ".tmp-LATEST-1").write_bytes(b"x")
    (run / ".tmp-away").symlink_to("/etc")


def _strangers(run: Path, rng: random.Random) -> None:
    """Names that only look like checkpoints."""
    for name in ("step-7", "step-00000099.bak", "step-000000099", "Step-00000099", "step-٠٠٠٠٠٠٩٩", "step--0000099"):
        (run / name).mkdir()


HARMLESS: dict[str, Callable[[Path, random.Random], None]] = {
    "hint missing": _no_hint, "hint empty": _write_hint(""), "hint nowhere": _write_hint("step-nowhere\n"),
    "hint outside": _write_hint("../../etc/step-00000099\n"), "hint linked": _linked_hint, "hint a folder": _hint_folder,
    "hint long": _write_hint("step-00000099" * 10_000), "best flipped": _flip_mark, "report spoiled": _spoil_report,
    "leftovers": _leftovers, "strangers": _strangers,
}  # fmt: skip
