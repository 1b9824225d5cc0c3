"""Every source of chance a run draws from, as JSON that continues it exactly: Python, numpy, torch, and the run's own generators."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..errors import CheckpointError

Generator = torch.Generator | np.random.Generator | random.Random


def seed_all(seed: int) -> None:
    """Begin all the global generators at `seed`, so that two runs of one seed draw the same."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture(generators: Mapping[str, Generator] | None = None) -> dict[str, Any]:
    """The state of the global generators of Python, numpy and torch (each GPU's included) and of `generators`, by name."""
    state: dict[str, Any] = {"python": _python(random), "numpy": _numpy_global(), "torch": _hex(torch.get_rng_state())}
    if torch.cuda.is_available():
        state["cuda"] = [_hex(one) for one in torch.cuda.get_rng_state_all()]
    state["own"] = {name: _own(generator) for name, generator in (generators or {}).items()}
    return state


def restore(saved: Mapping[str, Any], generators: Mapping[str, Generator] | None = None, *, allow_inexact: bool = False) -> list[str]:
    """Set all of them to where `capture` found them.

    Returns what could not be set, which is nothing unless `allow_inexact`: else that raises `CheckpointError`, since a run would go on and
    silently be another one.
    """
    generators = generators or {}
    problems: list[str] = []
    own = saved.get("own")
    own = own if isinstance(own, Mapping) else {}
    now = capture(generators)
    for name in sorted(own.keys() ^ generators.keys()):
        problems.append(f"generator {name!r}: " + ("the run has none of that name now" if name in own else "not saved"))
    for name in sorted((saved.keys() ^ now.keys()) - {"own"}):
        problems.append(f"{name}: " + ("no such device here" if name in saved else "not saved"))
    jobs = [
        (name, saved[name], set_it, lambda found, n=name: found[n]) for name, set_it in _GLOBAL.items() if name in saved and name in now
    ]
    for name in sorted(own.keys() & generators.keys()):
        set_own = functools.partial(_set_own, generators[name])
        jobs.append((f"generator {name!r}", own[name], set_own, lambda found, n=name: found["own"][n]))
    for name, state, set_it, part in jobs:
        try:
            set_it(state)
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError, OverflowError) as error:
            problems.append(f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            continue
        if part(capture(generators)) != state:
            problems.append(f"{name}: it was set, but is not as it was saved")
    if problems and not allow_inexact:
        raise CheckpointError(
            "random states cannot be restored: " + "; ".join(problems),
            hint="continue on the same kind of machine, or allow the run to become another one (--allow-inexact)",
            code="random_state",
        )
    return problems


def _hex(state: torch.Tensor) -> str:
    return bytes(state.cpu().numpy()).hex()


def _tensor(state: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8)


def _python(source: Any) -> list[Any]:
    version, words, gauss = source.getstate()
    return [version, list(words), gauss]


def _set_python(source: Any, state: Any) -> None:
    version, words, gauss = state
    source.setstate((version, tuple(words), gauss))


def _numpy_global() -> list[Any]:
    kind, words, place, has_gauss, gauss = np.random.get_state()
    return [str(kind), np.asarray(words).tolist(), int(place), int(has_gauss), float(gauss)]


def _set_numpy_global(state: Any) -> None:
    kind, words, place, has_gauss, gauss = state
    np.random.set_state((kind, np.array(words, dtype=np.uint32), place, has_gauss, gauss))


def _set_cuda(states: Any) -> None:
    if len(states) != torch.cuda.device_count():
        raise ValueError(f"saved on {len(states)} GPUs, {torch.cuda.device_count()} are here")
    torch.cuda.set_rng_state_all([_tensor(state) for state in states])


_GLOBAL = {
    "python": lambda state: _set_python(random, state),
    "numpy": _set_numpy_global,
    "torch": lambda state: torch.set_rng_state(_tensor(state)),
    "cuda": _set_cuda,
}
"""Where in the saved state -> how to set it."""


def _own(generator: Generator) -> dict[str, Any]:
    if isinstance(generator, torch.Generator):
        return {"torch": _hex(generator.get_state()), "device": str(generator.device)}
    if isinstance(generator, np.random.Generator):
        return {"numpy": _listed(generator.bit_generator.state)}
    return {"python": _python(generator)}


def _set_own(generator: Generator, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        if state["device"] != str(generator.device):
            raise ValueError(f"saved on {state['device']}, it is now on {generator.device}")
        generator.set_state(_tensor(state["torch"]))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state["numpy"]
    else:
        _set_python(generator, state["python"])


def _listed(value: Any) -> Any:
    """numpy's states hold arrays (of Mersenne twisters) and whole numbers of any size, which JSON has."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
