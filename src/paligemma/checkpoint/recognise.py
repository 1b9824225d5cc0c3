"""What a file that is no readable checkpoint really is: a Git LFS pointer, a web page, half a download, a pickle, another model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import CheckpointError

PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
_PARTIAL = {".incomplete", ".part", ".crdownload", ".download", ".tmp"}


def why_not_weights(path: Path, start: bytes) -> CheckpointError | None:
    """The error to raise for a file that begins with `start` (some hundred bytes), or None where nothing speaks against it."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if start.startswith(b"version https://git-lfs"):
        return CheckpointError(
            f"{path.name} is a Git LFS pointer, not the weights",
            hint="run `git lfs pull` in that folder, or fetch the model with `paligemma pull`",
            code="git_lfs_pointer",
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return CheckpointError(
            f"{path.name} is a web page saved under that name, not the weights",
            hint="the download needs a login or an accepted licence: fetch the model with `paligemma pull`",
            code="html_page",
        )
    if (error := _by_suffix(path)) is not None:
        return error
    # A pickle of protocol 2 to 5, whatever the name says. A safetensors header may begin with the same two bytes (they are its length),
    # but then its ninth byte is '{'.
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") and start[8:9] != b"{":
        return pickle_refused(path)
    return None


def _by_suffix(path: Path) -> CheckpointError | None:
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        return pickle_refused(path)
    if suffix in _PARTIAL or ".npz.part" in path.name or ".safetensors.part" in path.name:
        joined = ".part" in path.name and suffix not in _PARTIAL
        return CheckpointError(
            f"{path.name} is a part of a file" if joined else f"{path.name} is a download that was not finished",
            hint="join the parts in order with `cat`" if joined else "fetch the file again",
            code="incomplete_download",
        )
    return None


def refuse_by_name(path: Path) -> None:
    """Raise for a name that already says the file cannot be a checkpoint: a pickle or half a download."""
    if (error := _by_suffix(path)) is not None:
        raise error


def pickle_refused(path: Path) -> CheckpointError:
    """Loading a pickle runs whatever code is in it; this package never does."""
    return CheckpointError(
        f"{path.name} is a pickle: loading one can run any code, so it is refused",
        hint="use the model's safetensors files, or save it as safetensors with transformers on a machine you can afford to lose",
        code="pickle_refused",
    )


ENCODER_TYPES = ("siglip", "siglip2")
"""`model_type` of SigLIP's two towers, which are no PaliGemma. The second is NaFlex's alone; other SigLIP 2 are of the first type."""


def holds_encoder(names: Iterable[str]) -> bool:
    """Whether big_vision's array names are those of two towers: a PaliGemma's text is under `llm/`."""
    return any(name.removeprefix("params/").startswith("txt/") for name in names)


def encoder_refused(where: object) -> CheckpointError:
    """What asks for a PaliGemma was given SigLIP's two towers."""
    return CheckpointError(
        f"{where} is a SigLIP: it compares pictures with texts, and says nothing about a picture",
        hint="search with it (paligemma index, paligemma search), and name a PaliGemma to be asked",
        code="is_encoder",
    )


def beginning(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(520)
