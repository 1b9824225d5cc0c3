"""Published checkpoints on the Hugging Face hub: fetch one, or find the one that was fetched before. Only weights, JSON and tokenizers.

An id is `owner/name`, or `owner/name@revision` for a branch or commit that is not the main one: PaliGemma 1 keeps its half-precision
weights on the branches `bfloat16` and `float16`.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import CheckpointError, ResourceError, UsageError

PATTERNS = ("*.safetensors", "*.npz", "*.json", "*.model", "README.md")
"""What is fetched. Code and pickles in the repository are left there."""
_ID = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([A-Za-z0-9][\w./-]{0,95}))?", re.ASCII)
LICENCE = "the Gemma licence has to be accepted once by a logged-in user on https://huggingface.co/{}"


def is_hub_id(name: str) -> bool:
    """Whether it has the form of `google/paligemma2-3b-mix-224` or `google/paligemma-3b-pt-224@bfloat16`."""
    return _match(name) is not None


def cached(hf_id: str) -> Path | None:
    """The folder of a checkpoint that is in the local cache with its weights, or None. Never uses the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, revision = _parts(hf_id)
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=list(PATTERNS)))
    except (LocalEntryNotFoundError, FileNotFoundError):
        return None
    return folder if any(folder.glob("*.safetensors")) or any(folder.glob("*.npz")) else None


def pull(hf_id: str) -> Path:
    """Fetch a checkpoint into the hub's cache (resuming what was begun) and return its folder.

    Raises `CheckpointError` for an unknown or gated repository and without a network, `ResourceError` for a full disk.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    name, revision = _parts(hf_id)
    if constants.HF_HUB_OFFLINE:
        if (folder := cached(hf_id)) is not None:
            return folder
        raise CheckpointError(
            f"{hf_id} is not in the local cache, and HF_HUB_OFFLINE forbids to fetch it", hint="unset HF_HUB_OFFLINE", code="offline"
        )
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(PATTERNS)))
    except errors.GatedRepoError:
        raise CheckpointError(
            f"{hf_id} is gated: {LICENCE.format(name)}",
            hint="accept it there, run `hf auth login` (or set HF_TOKEN), and pull again",
            code="gated",
        ) from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{name} has no branch or commit {revision!r}", code="not_found") from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"Hugging Face knows no {name}, or does not show it to you",
            hint="check the spelling; published ids look like google/paligemma2-3b-mix-224",
            code="not_found",
        ) from None
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        raise CheckpointError(
            f"{hf_id} cannot be fetched: Hugging Face does not answer ({type(error).__name__})",
            hint="check the network, then pull again: it continues where it stopped",
            code="offline",
        ) from error
    except OSError as error:
        raise ResourceError(f"{hf_id} cannot be stored: {error.strerror or type(error).__name__}", code="disk_full") from error


def _parts(hf_id: str) -> tuple[str, str | None]:
    """(owner/name, revision)."""
    match = _match(hf_id)
    if match is None:
        raise UsageError(
            f"{hf_id!r} is no Hugging Face id",
            hint="expected the form owner/name or owner/name@revision, such as google/paligemma2-3b-mix-224",
        )
    return match[1], match[2]


def _match(name: str) -> re.Match[str] | None:
    match = _ID.fullmatch(name)
    return None if match is None or ".." in name or "--" in match[1] else match
