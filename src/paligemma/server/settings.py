"""Every number and choice of the server, and the check that a server which strangers can reach asks for a key."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError


@dataclass(frozen=True)
class Limits:
    """What one request, one client and the whole server may take. Bytes, seconds, pixels and counts; each is checked before the work."""

    header_bytes: int = 16 << 10
    """All header lines of a request: browsers and clients stay below 8 KiB."""
    url_bytes: int = 8 << 10
    """Path and query: nothing here needs a long one."""
    body_bytes: int = 32 << 20
    """A photo of 20 MiB is 27 MiB in base64."""
    bodies_bytes: int = 1 << 30
    """Of all requests together, so that many clients with large bodies cannot fill the memory."""
    json_depth: int = 64
    """Requests nest 6 deep; parsers recurse."""
    json_nodes: int = 10_000
    """Values and keys: a batch of 256 questions has about 2,500."""
    parts: int = 16
    """Of a form: 8 pictures and as many fields."""
    field_bytes: int = 64 << 10
    """Of a form's text field: as long as a prompt."""
    file_bytes: int = 20 << 20
    """Of a form's file: as long as a picture."""

    images: int = 8
    """Pictures of one request: each takes up to 4,096 places of the context."""
    image_bytes: int = 20 << 20
    """A large photo of a phone or camera."""
    images_bytes: int = 32 << 20
    """Of all pictures of a request together, decoded from base64: a count alone would bound nothing."""
    image_pixels: int = 64 << 20
    """The model sees 0.8 megapixels at most; this is 280 MB while it is being decoded."""
    images_pixels: int = 128_000_000
    """Of all pictures of a request together."""
    image_side: int = 32_768
    """A row longer than that is no photo."""
    decode_workers: int = 2
    """Pictures decoded at a time, each in a process of its own."""
    decode_seconds: float = 10
    """64 megapixels take two seconds on a slow machine."""
    decode_memory: int = 2 << 30
    """Address space of a decoding process: seven times the largest picture."""

    prompt_bytes: int = 64 << 10
    """Looked at before the text is split into tokens."""
    prompt_tokens: int = 512
    """The model was trained on short prompts."""
    context: int = 8192
    """Image tokens, prompt and answer together: positions the model was trained for."""
    max_tokens: int = 256
    """Of an answer, where the task has no usual length."""
    most_tokens: int = 2048
    """Of an answer, whatever the client asks for."""
    explained_numbers: int = 1 << 17
    """Of an explanation, a number for each token and patch: 512 tokens at 224 pixels, 32 at 896. As JSON up to 2 MB; longer answers come
    without."""
    batch: int = 256
    """Requests in one batch."""

    waiting: int = 32
    """Requests in the queue: beyond that, waiting takes longer than people wait."""
    waiting_each: int = 4
    """Of one client, so that nobody fills the queue alone."""
    queue_seconds: float = 30
    """In the queue; then another replica should have it."""
    request_seconds: float = 300
    """For all of a request."""
    heartbeat: float = 15
    """Between two signs of life in a stream: proxies close silent connections after 30 to 60 s."""
    stall_seconds: float = 10
    """Without a step of the engine, though there is work: then it counts as dead."""
    drain_seconds: float = 30
    """For answers under way when the server is told to stop."""

    connections: int = 256
    """Open at a time, idle ones included; each is a file descriptor."""
    header_seconds: float = 10
    """Until all header lines are here; and the body, where it is short and they are refused."""
    body_seconds: float = 30
    """Until all of the body is here."""
    body_rate: int = 1024
    """Bytes a second, of a body after its first five seconds, and of an answer that waits to be read."""
    blocked_write_seconds: float = 30
    """A client that reads slower than `body_rate` for this long is hung up on."""
    keep_alive: float = 5
    """An idle connection is kept for the next request."""

    def __post_init__(self) -> None:
        for limit in dataclasses.fields(self):
            if not getattr(self, limit.name) > 0:
                raise UsageError(f"limit {limit.name}: expected more than 0, found {getattr(self, limit.name)!r}")


@dataclass(frozen=True)
class Settings:
    """How a server is reached, by whom, and what it may fetch.

    `api_keys`: any of them opens the server. `no_auth`: none is asked for, even from strangers. `allowed_hosts`: names by which it may be
    called besides localhost and its own addresses. `allowed_origins`: pages of other sites that may call it ("https://app.example").
    `media_domains`: hosts that pictures may be fetched from by https. `media_root`: folder that `file:` names are looked up in.
    `video`: whether a video is taken for a picture. `rows`: answers written side by side. `memory`: bytes that they may take together, by
    default half of what is free. `pictures_kept`: pictures whose image tokens are kept for the next question about them.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    no_auth: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    media_domains: tuple[str, ...] = ()
    media_root: Path | None = None
    video: bool = False
    rows: int = 16
    memory: int | None = None
    pictures_kept: int = 32
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Raises `UsageError` for what cannot be meant, and for a server that strangers could use."""
        if self.rows < 1 or not (self.memory is None or self.memory > 0):
            raise UsageError(f"--rows must be at least 1 and --memory above 0, got {self.rows} and {self.memory}")
        if not 0 <= self.port < 65536:
            raise UsageError(f"--port must be from 0 to 65535, got {self.port}")
        if any(not key.strip() or key != key.strip() or not key.isprintable() for key in self.api_keys):
            raise UsageError("an API key is empty, or has spaces around it or control characters in it")
        if not is_loopback(self.host) and not self.api_keys and not self.no_auth:
            raise UsageError(
                f"--host {self.host} can be reached from other machines, and there is no --api-key",
                hint="give an --api-key, or --insecure-no-auth where everyone who can reach it may use it",
                code="key_needed",
            )
        for option, values, pattern, example in (
            ("--allowed-host", self.allowed_hosts, _HOST, "models.example.com"),
            ("--allowed-media-domain", self.media_domains, _HOST, "images.example.com"),
            ("--allowed-origin", self.allowed_origins, _ORIGIN, "https://app.example.com"),
        ):
            for value in values:
                if not pattern.fullmatch(value):
                    raise UsageError(f"{option}: expected something like {example}, found {value!r}")
        if self.media_root is not None and not self.media_root.is_dir():
            raise UsageError(f"--media-root: expected a folder, found {str(self.media_root)!r}")


_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(?::\d{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
