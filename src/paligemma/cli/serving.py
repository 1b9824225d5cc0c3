"""`paligemma serve`: a loaded model as a service, and the page in front of it."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal  # noqa: F401  (as above)

from cyclopts import Group, Parameter

from ..checkpoint.finding import BUNDLED
from ..checkpoint.placing import SMALL
from ..errors import ResourceError, UsageError
from .options import MODEL, MODEL_VARIABLE, DType, ModelOptions  # noqa: F401  (the parser looks for the names of inherited fields here)

if TYPE_CHECKING:
    from ..server.searching import Collection
    from ..server.settings import Settings

ADDRESS = Group("Address", sort_key=2)
ACCESS = Group("Who may ask", sort_key=3)
PICTURES = Group("Pictures", sort_key=4)
ENGINE = Group("Engine", sort_key=5)
GB = 1e9


@Parameter(name="*")
@dataclass(frozen=True)
class ServeOptions(ModelOptions):
    """Which model, for whom, with how much."""

    model: Annotated[str | None, Parameter(alias="-m", group=MODEL, env_var=MODEL_VARIABLE)] = None
    """A folder, an .npz file, a pack or a Hugging Face id that was pulled. The bundled small model by default."""
    adapter: Annotated[tuple[str, ...], Parameter(group=MODEL)] = ()
    """NAME=FOLDER: an adapter that requests choose with "model": "MODEL:NAME". May be given several times."""
    name: Annotated[str | None, Parameter(group=MODEL)] = None
    """What clients call the model. By default the last part of its path."""

    host: Annotated[str, Parameter(group=ADDRESS)] = "127.0.0.1"
    """0.0.0.0 for other machines too, with --api-key."""
    port: Annotated[int, Parameter(group=ADDRESS)] = 8000
    """0 takes a free one and says which."""

    api_key: Annotated[tuple[str, ...], Parameter(group=ACCESS, env_var="PALIGEMMA_API_KEY", negative="")] = ()
    """Keys that clients must send one of. Better in the environment variable, which other users of the machine do not see."""
    insecure_no_auth: Annotated[bool, Parameter(group=ACCESS, negative="", show_default=False)] = False
    """No key, whoever can reach the address."""
    allowed_host: Annotated[tuple[str, ...], Parameter(group=ACCESS, negative="")] = ()
    """Names by which the server may be called, besides localhost and its address."""
    allowed_origin: Annotated[tuple[str, ...], Parameter(group=ACCESS, negative="")] = ()
    """Pages of other sites that may call it from a browser: https://app.example.com."""

    allowed_media_domain: Annotated[tuple[str, ...], Parameter(group=PICTURES, negative="")] = ()
    """Hosts that pictures may be fetched from, over https. None by default."""
    media_root: Annotated[Path | None, Parameter(group=PICTURES)] = None
    """A folder whose pictures clients may name: file:NAME."""

    index: Annotated[str | None, Parameter(group=PICTURES)] = None
    """An index of `paligemma index`, to be searched here: a folder or an address. Clients see its pictures."""
    encoder: Annotated[str | None, Parameter(group=PICTURES)] = None
    """The SigLIP of the index, where it is not to be found under the name that it had."""

    rows: Annotated[int, Parameter(group=ENGINE)] = 16
    """Answers that are written side by side."""
    memory: Annotated[float | None, Parameter(group=ENGINE)] = None
    """Gigabytes that they may take together. By default half of what is free once the model is loaded."""
    mmap: Annotated[bool, Parameter(group=ENGINE, negative="", show_default=False)] = False
    """Use a pack's weights where they lie in their file, instead of reading them first. Whoever cuts that file ends the server."""
    log_json: Annotated[bool, Parameter(group=ENGINE, negative="", show_default=False)] = False
    """Logs as JSON, a line for each request."""


DEFAULTS = ServeOptions()


def serve(options: ServeOptions = DEFAULTS) -> int:
    """Answer questions about pictures over HTTP, and serve a page to ask them."""
    lacking = [name for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client") if importlib.util.find_spec(name) is None]
    if lacking:
        raise ResourceError(f"serve needs {', '.join(lacking)}", hint="pip install 'paligemma[serve]'", code="not_installed")
    from ..demo import HONEST
    from ..predictor import load
    from ..server.logs import log_to
    from ..server.running import EVERYWHERE, bind
    from ..server.running import serve as run
    from ..server.service import Service
    from ..server.settings import Settings

    settings = Settings(
        host=options.host,
        port=options.port,
        api_keys=options.api_key,
        no_auth=options.insecure_no_auth,
        allowed_hosts=options.allowed_host,
        allowed_origins=options.allowed_origin,
        media_domains=options.allowed_media_domain,
        media_root=options.media_root,
        rows=options.rows,
        memory=None if options.memory is None else int(options.memory * GB),
    )
    settings.check()
    listening = bind(options.host, options.port)
    adapters = dict(map(_adapter, options.adapter))
    predictor = load(
        options.model,
        device=options.device,
        dtype=options.dtype,
        tokenizer=options.tokenizer,
        codec=options.codec,
        adapters=adapters or None,
        engine=options.engine,
        quantize=options.quantize,
        mapped=options.mmap,
    )
    if predictor.config.num_parameters < SMALL:
        leave_a_core()
    collection = None if options.index is None else _collection(options.index, options, settings)
    name = options.name or (predictor.path.name if predictor.path else "paligemma")
    service = Service(predictor, settings, name=name)
    others = " and this machine's other addresses" if options.host in EVERYWHERE else ""
    for line in predictor.description.splitlines():
        print(line, file=sys.stderr)
    with log_to(sys.stderr, json_lines=options.log_json):
        run(
            service,
            listening,
            collection=collection,
            notes=HONEST[:2] if predictor.path and predictor.path.parent == BUNDLED else (),
            ready=lambda address: print(f"listening on {address}{others}  (ctrl-C ends it)", flush=True),
        )
    return 0


def leave_a_core() -> None:
    """PyTorch's threads meet after every operation. Where those are short, and a thread has to wait for a core that the rest of the server
    uses, all of them wait. `OMP_NUM_THREADS` overrides."""
    torch = sys.modules.get("torch")
    if torch is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def _collection(where: str, options: ServeOptions, settings: Settings) -> Collection:
    from ..server.searching import open_collection

    return open_collection(where, options.encoder, settings, device=options.device)


def _adapter(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise UsageError(f"--adapter: expected NAME=FOLDER, found {text!r}")
    return name, folder
