"""Full size: random PaliGemmas in every published format load, answer alike, convert both ways and come back equal, in bounded memory.

Not run by default. `pytest -m slow -s tests/slow` takes about a quarter of an hour on two cores, 20 GB of disk and 12 GB of memory, and
prints a table. Linux only: memory is read from /proc. Every step is a process of its own, as a user's command would be.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from paligemma.config import PRESETS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")]

CONVERT_LIMIT = 3e9
"""Peak memory of a conversion, mapped pages included."""

# Weights are small multiples of 2 ** -11, which float32, float16 and bfloat16 all hold exactly: no conversion may lose a bit.
WRITE = """
import torch
from paligemma.checkpoint import save_huggingface
from paligemma.config import PRESETS
from paligemma.model.paligemma import PaliGemma
with torch.device("meta"):
    model = PaliGemma(PRESETS[name])
generator = torch.Generator().manual_seed(0)
state = {
    key: (torch.randint(-64, 65, weight.shape, generator=generator, dtype=torch.int8).to(torch.bfloat16) * 2**-11)
    for key, weight in model.state_dict().items()
}
model.load_state_dict(state, assign=True)
save_huggingface(model, target, max_shard_bytes=None)
"""

CONVERT = """
from paligemma.checkpoint import convert
done = convert(source, target, dtype=dtype, max_shard_bytes=shard)
result = {"format": done.format, "dtype": done.dtype, "copied": done.copied}
"""

ANSWER = """
import numpy as np
import paligemma
from paligemma.checkpoint import inspect
info = inspect(source)
assert not info.problems, info.problems
model = paligemma.load(source, dtype="bfloat16")
loaded = peaks()
picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
answer = model.ask(picture, "how many cats?", max_tokens=4)
boxes = model.detect(picture, ["cat"], max_tokens=8)
result = {"description": info.description, "answer": answer.text, "score": answer.score, "boxes": boxes.text, "loaded": loaded}
"""

# One digest over all tensors under our names, as bfloat16.
DIGEST = """
import hashlib
import torch
from paligemma.checkpoint.opening import open_checkpoint
weights = open_checkpoint(source, mapped=False).weights()
digest = hashlib.blake2b()
for name in weights.specs:
    digest.update(name.encode())
    tensor = weights.read(name)
    exact = tensor.to(torch.bfloat16)
    assert torch.equal(exact.to(tensor.dtype), tensor), name
    digest.update(memoryview(exact.contiguous().view(torch.uint8).view(-1).numpy()))
result = digest.hexdigest()
"""

HARNESS = """
import json, sys, threading, time
arguments = json.loads(sys.argv[1])
high = {"RssAnon": 0, "VmRSS": 0}
def look():
    for line in open("/proc/self/status"):
        key, _, value = line.partition(":")
        if key in high:
            high[key] = max(high[key], int(value.split()[0]) * 1024)
def watch():
    while True:
        look()
        time.sleep(0.02)
def peaks():
    look()
    return dict(high)
threading.Thread(target=watch, daemon=True).start()
space = {**arguments, "peaks": peaks, "result": None}
started = time.monotonic()
exec(sys.stdin.read(), space)
print("RESULT" + json.dumps({"result": space["result"], "seconds": time.monotonic() - started, **peaks()}))
"""


@dataclass(frozen=True)
class Step:
    result: object
    seconds: float
    anonymous: int
    resident: int


def run(title: str, code: str, **arguments: object) -> Step:
    """Run `code` in a fresh process with the arguments as variables; print what it took."""
    command = [sys.executable, "-c", HARNESS, json.dumps({key: str(v) if isinstance(v, Path) else v for key, v in arguments.items()})]
    threads = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # the other tests' one is not enough here
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False, env=threads)
    assert done.returncode == 0, f"{title}\n{done.stderr[-3000:]}"
    told = json.loads(done.stdout.rsplit("RESULT", 1)[1])
    step = Step(told["result"], told["seconds"], told["RssAnon"], told["VmRSS"])
    own, resident = step.anonymous / 1e9, step.resident / 1e9
    print(f"{title:44} {step.seconds:6.0f} s   own {own:5.2f} GB   with mapped pages {resident:5.2f} GB", flush=True)
    return step


def on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))


@pytest.mark.parametrize("name", ["paligemma-3b-224", "paligemma2-3b-448"])
def test_every_published_format(name: str, tmp_path: Path):
    from tests.test_tokenizer import gemma_pieces, model_file

    single = tmp_path / "hf"
    print(f"\n{name}")
    run("write a Hugging Face folder", WRITE, name=name, target=single)
    (single / "tokenizer.model").write_bytes(model_file(gemma_pieces()))
    size = 2 * PRESETS[name].num_parameters
    assert on_disk(single) == pytest.approx(size, rel=0.01)
    expected = run("digest", DIGEST, source=single).result
    answers = [answer(single, size)]

    def converted(source: Path, target: Path, dtype: str | None = None, shard: int | None = None) -> Path:
        step = run(f"convert {source.name} -> {target.name}", CONVERT, source=source, target=target, dtype=dtype, shard=shard)
        assert step.resident < CONVERT_LIMIT
        assert step.result["copied"] == ["tokenizer.model"] or target.parent == source.parent  # type: ignore[index]
        assert run("digest", DIGEST, source=target).result == expected
        return target

    for kind in ("bfloat16", "float16", "float32"):
        archive = converted(single, tmp_path / kind / f"{kind}.npz", dtype=kind)
        answers.append(answer(archive, size))
        if kind == "float32":
            shutil.rmtree(single)
            answers.append(answer(converted(archive, tmp_path / "sharded", dtype="bfloat16", shard=2_000_000_000), size))
            assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
        else:
            shutil.rmtree(converted(archive, tmp_path / f"back-{kind}", dtype="bfloat16"))
        shutil.rmtree(archive.parent)
    assert all(other == answers[0] for other in answers[1:]), answers


def answer(path: Path, size: int) -> tuple[object, ...]:
    step = run(f"load {path.name} and answer", ANSWER, source=path)
    told = step.result
    assert isinstance(told, dict)
    # Once, not twice: the weights, what one conversion or packing needs, and what torch itself takes.
    assert step.resident < 1.2 * size + 1e9
    return told["answer"], told["score"], told["boxes"], told["description"]
