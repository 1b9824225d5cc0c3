"""A server that strangers can reach asks for a key; what cannot be meant is said at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from paligemma.errors import UsageError
from paligemma.server.settings import Limits, Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_this_machine_needs_no_key(host: str):
    Settings(host=host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "models.example", "localhost.evil.example", "0177.0.0.1"])
def test_others_need_one(host: str):
    with pytest.raises(UsageError, match="api-key") as caught:
        Settings(host=host).check()
    assert caught.value.code == "key_needed"
    Settings(host=host, api_keys=("k",)).check()
    Settings(host=host, no_auth=True).check()


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_keys": ("",)}, {"api_keys": ("k", " ")}, {"api_keys": ("k\n",)}, {"api_keys": ("a\x00b",)},
        {"allowed_hosts": ("*",)}, {"allowed_hosts": ("http://x.example",)}, {"allowed_hosts": ("X.example",)},
        {"allowed_hosts": ("x:80",)},
        {"allowed_origins": ("*",)}, {"allowed_origins": ("app.example",)}, {"allowed_origins": ("https://app.example/",)},
        {"rows": 0}, {"memory": 0}, {"port": 65536}, {"port": -1},
        {"media_domains": ("*.example",)}, {"media_domains": ("https://x.example",)}, {"media_root": Path("/no/such/folder")},
    ],
)  # fmt: skip
def test_what_cannot_be_meant(wrong: dict):
    with pytest.raises(UsageError):
        Settings(**wrong).check()


def test_what_can_be_meant(tmp_path: Path):
    Settings(
        allowed_hosts=("models.example", "[2001:db8::1]"),
        allowed_origins=("http://localhost:5173",),
        media_domains=("images.example.com",),
        media_root=tmp_path,
    ).check()


def test_keys_are_not_shown():
    assert "secret" not in repr(Settings(api_keys=("secret",)))


@pytest.mark.parametrize("value", [0, -1])
def test_limits_are_positive(value: int):
    with pytest.raises(UsageError, match="body_bytes"):
        Limits(body_bytes=value)
