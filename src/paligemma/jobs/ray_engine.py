"""The engine of a job that is Ray Data: open -> answer -> rows, by processes on one machine or many.

    spans -> tasks that open pictures -> actors, each with a model -> this process, which alone writes

Ray is given the source lot by lot: rows of a table may hold their pictures, and would fill the memory. Of a lot it hands out spans as fast
as they are taken up (what was opened waits in its object store, no more than fits), and does again what a process that died had in hand.
Rows come in any order; the journal knows which are there. So a worker that dies costs nothing, and a job whose main process dies goes on as
any other does, with either engine.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..config import PaliGemmaConfig
from ..errors import PaliGemmaError, UsageError
from .job import Engine, Span
from .work import Done, Opened, Order, answer, open_item

if TYPE_CHECKING:
    from ..predictor import Predictor

STORE = 512 << 20
"""Bytes of Ray's object store where this process starts Ray: opened pictures that wait."""
LOT = STORE
"""Bytes of spans, pickled, that Ray is given at a time. Between two lots the workers begin anew, so they are large: a million names."""
OPENING = 0.25
"""Processors that opening a span counts for: it waits for disks."""


def on_ray(
    load: Callable[[], Predictor], config: PaliGemmaConfig, order: Order, *, batch: int, workers: int, cpus: int = 1, gpus: float = 0
) -> Engine:
    """`load`: called once in each of `workers` processes, which has `cpus` and `gpus`; `config`: of the model it loads; `batch`: pictures
    that go through a model at a time. Raises `UsageError` where Ray is missing.

    Ray is started here, for one job, unless it is running: RAY_ADDRESS names a cluster, whose machines must all see source and model.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UsageError("--engine ray needs Ray Data, which is not installed", hint="pip install 'paligemma[scale]'") from error

    def engine(spans: Iterator[Span]) -> Iterator[tuple[int, list[Done]]]:
        waiting = lots(spans, LOT)
        lot = next(waiting, None)
        if lot is None:
            return
        ours = not ray.is_initialized()
        if ours:
            _start(ray, workers * cpus)
        try:
            while lot is not None:
                data: Any = ray.data.from_items([{"span": span} for span in lot], override_num_blocks=len(lot))
                # Any: Ray declares functions of a row alone, and takes these.
                opened = data.map(_open, fn_args=(config, order), num_cpus=OPENING)
                pool = ray.data.ActorPoolStrategy(size=workers)
                made = (load, order, batch)
                done = opened.map(Answering, fn_constructor_args=made, compute=pool, num_cpus=cpus, num_gpus=gpus)
                for row in done.iter_rows():
                    came = pickle.loads(row["done"])
                    if isinstance(came, PaliGemmaError):
                        raise came
                    yield row["start"], came
                del lot, data, opened, done  # before there is another
                lot = next(waiting, None)
        finally:
            if ours:
                ray.shutdown()

    return engine


def lots(spans: Iterable[Span], most: int) -> Iterator[list[bytes]]:
    """Spans, pickled, as many as together have `most` bytes, and one at least."""
    lot, size = [], 0
    for span in spans:
        data = pickle.dumps(span)
        if lot and size + len(data) > most:
            yield lot
            lot, size = [], 0
        lot.append(data)
        size += len(data)
    if lot:
        yield lot


def _start(ray: Any, cpus: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.data import DataContext  # pyright: ignore[reportMissingImports]

    DataContext.get_current().enable_progress_bars = False
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        # One processor more than the models have: for opening.
        ray.init(
            num_cpus=cpus + 1, include_dashboard=False, _node_ip_address="127.0.0.1", object_store_memory=STORE, log_to_driver=False
        )  # fmt: skip


def _open(row: dict[str, Any], config: PaliGemmaConfig, order: Order) -> dict[str, Any]:
    """A span's pickle -> that of what was opened."""
    span: Span = pickle.loads(row["span"])
    return {"start": span.start, "opened": pickle.dumps([open_item(item, config, order) for item in span.items])}


class Answering:
    """An actor: a model, and the order.

    What it cannot do at all comes back as the error that the plain engine raises, in place of what is done: Ray wraps what is raised in
    errors of its own, and begins an actor that cannot begin again and again.
    """

    def __init__(self, load: Callable[[], Predictor], order: Order, batch: int):
        self._order, self._batch = order, batch
        try:
            self._predictor = load()
        except PaliGemmaError as error:
            self._predictor = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"start": row["start"], "done": pickle.dumps(self._done(pickle.loads(row["opened"])))}

    def _done(self, opened: list[Opened]) -> list[Done] | PaliGemmaError:
        if isinstance(self._predictor, PaliGemmaError):
            return self._predictor
        parts = [opened[at : at + self._batch] for at in range(0, len(opened), self._batch)]
        try:
            return [one for part in parts for one in answer(self._predictor, self._order, part)]
        except PaliGemmaError as error:
            return error
