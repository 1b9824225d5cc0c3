"""Fetching: what is asked of the hub, and one sentence for each way it can fail. No network: the hub's client is replaced."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from paligemma.checkpoint import cached, is_hub_id, pull
from paligemma.errors import CheckpointError, PaliGemmaError, ResourceError, UsageError
from paligemma.predictor.loading import find

ID = "google/paligemma2-3b-mix-224"


@pytest.fixture
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def answer(monkeypatch, outcome):
    """Let the client return a folder or raise; returns the calls it got."""
    calls = []

    def client(*args, **options):
        calls.append((args, options))
        if isinstance(outcome, BaseException):
            raise outcome
        return str(outcome)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", client)
    return calls


def hub_error(kind):
    import httpx2

    return kind(
        "for url https://huggingface.co/secret", response=httpx2.Response(403, request=httpx2.Request("GET", "https://huggingface.co"))
    )


def test_only_weights_json_and_tokenizers_are_fetched(monkeypatch, tmp_path, online):
    calls = answer(monkeypatch, tmp_path)
    assert pull(f"{ID}@bfloat16") == tmp_path
    ((args, options),) = calls
    assert args == (ID,)
    assert options["revision"] == "bfloat16"
    wanted = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.model"]
    there = [*wanted, "pytorch_model.bin", "evil.py", ".gitattributes"]
    assert list(huggingface_hub.utils.filter_repo_objects(there, allow_patterns=options["allow_patterns"])) == wanted


FAILURES = {
    "gated": (lambda: hub_error(errors.GatedRepoError), "gated", "Gemma licence"),
    "unknown": (lambda: hub_error(errors.RepositoryNotFoundError), "not_found", ID),
    "no such branch": (lambda: hub_error(errors.RevisionNotFoundError), "not_found", "bfloat16"),
    "server error": (lambda: hub_error(errors.HfHubHTTPError), "offline", "does not answer"),
    "no network": (lambda: errors.LocalEntryNotFoundError("cannot reach"), "offline", "does not answer"),
    "refused connection": (lambda: ConnectionError("refused"), "offline", "does not answer"),
    "full disk": (lambda: OSError(errno.ENOSPC, "No space left on device"), "disk_full", "No space left"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_one_sentence(monkeypatch, online, case):
    make, code, word = FAILURES[case]
    answer(monkeypatch, make())
    with pytest.raises(PaliGemmaError) as caught:
        pull(f"{ID}@bfloat16")
    error = caught.value
    assert isinstance(error, ResourceError if code == "disk_full" else CheckpointError)
    assert (error.code, ID in error.message, "\n" in error.message) == (code, True, False)
    assert word in error.message
    assert "secret" not in error.message


def test_the_gated_licence_says_what_to_do(monkeypatch, online):
    answer(monkeypatch, hub_error(errors.GatedRepoError))
    with pytest.raises(CheckpointError) as caught:
        pull(ID)
    assert f"https://huggingface.co/{ID}" in caught.value.message
    assert "hf auth login" in (caught.value.hint or "")


def test_offline_never_asks_the_network(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    calls = answer(monkeypatch, errors.LocalEntryNotFoundError("not here"))
    with pytest.raises(CheckpointError) as caught:
        pull(ID)
    assert caught.value.code == "offline"
    assert [options["local_files_only"] for _, options in calls] == [True]


@pytest.mark.parametrize(("files", "found"), [(["model.safetensors"], True), (["x.npz"], True), (["config.json"], False)])
def test_cached_is_a_folder_with_weights(monkeypatch, tmp_path, files, found):
    for name in files:
        (tmp_path / name).touch()
    calls = answer(monkeypatch, tmp_path)
    assert cached(ID) == (tmp_path if found else None)
    assert calls[0][1]["local_files_only"]


def test_the_real_cache_layout(monkeypatch, tmp_path):
    """As the client leaves it on disk: refs, snapshots, blobs."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert cached(ID) is None
    repo = tmp_path / f"models--{ID.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "bfloat16").write_text(commit)
    (snapshot / "model.safetensors").touch()
    assert cached(ID) is None
    assert cached(f"{ID}@bfloat16") == cached(f"{ID}@{commit}") == find(f"{ID}@bfloat16") == snapshot
    (repo / "refs" / "main").write_text(commit)
    assert cached(ID) == snapshot


def test_a_branch_that_is_not_there_says_how_to_fetch_it(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        find(f"{ID}@bfloat16")
    assert caught.value.hint == f"fetch it: paligemma pull {ID}@bfloat16"


@pytest.mark.parametrize(
    "name", ["google/paligemma-3b-pt-224", "a/b", "someone_1/my.model-2", "google/paligemma-3b-pt-224@bfloat16", "a/b@refs/pr/1"]
)
def test_ids(name):
    assert is_hub_id(name)


NO_IDS = [
    "paligemma",
    "a/b/c",
    "../x",
    "a/../b",
    "/a/b",
    "a/",
    "a b/c",
    "a/b\n",
    "~/x",
    "a/.hidden",
    "a" * 97 + "/b",
    "a/b@",
    "a/b@../x",
    "a/b@c@d",
]


@pytest.mark.parametrize("name", NO_IDS)
def test_no_ids(name):
    assert not is_hub_id(name)
    for function in (pull, cached):
        with pytest.raises(UsageError):
            function(name)


def test_a_fresh_process_can_pull():
    """Parts of huggingface_hub that nobody imported are not there yet: a whole test run hides that."""
    code = "from paligemma.checkpoint import pull; pull('google/paligemma2-3b-mix-224')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert "CheckpointError: google/paligemma2-3b-mix-224 is not in the local cache, and HF_HUB_OFFLINE forbids" in done.stderr
