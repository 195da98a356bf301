"""Adapters on the Hugging Face hub: found by id, pushed with their model card."""

from __future__ import annotations

import re
from pathlib import Path

from sur.support.errors import ConfigError, NotFound

CONFIG_FILE, WEIGHTS_FILE = "config.json", "adapter.safetensors"
ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE)
PUBLISHED = (*ADAPTER_FILES, "README.md", "*.png")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def adapter_folder(name: str | Path, revision: str | None = None) -> Path:
    """The folder that a path or a hub id stands for; of a hub repository only an adapter's files are fetched.

    Raises NotFound when there is neither.
    """
    folder = Path(name)
    if (folder / CONFIG_FILE).is_file():
        return folder
    name = str(name)
    if folder.exists() or not _HUB_ID.fullmatch(name):
        own = folder / "adapter"
        instead = str(own) if (own / CONFIG_FILE).is_file() else "the folder that `sur train` printed"
        raise NotFound(
            f"no adapter in {folder}: {CONFIG_FILE} is missing; give {instead}, or a hub id such as "
            "somebody/their-adapter"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(ADAPTER_FILES)))
    except Exception as error:
        raise NotFound(
            f"{name!r} is no folder here and the hub gave none ({type(error).__name__}: {error}); correct the name, or "
            "unset HF_HUB_OFFLINE to download it"
        ) from error


def push(folder: Path, repository: str, private: bool = True, revision: str | None = None) -> str:
    """Upload a published adapter, that is its weights, config, card and pictures; returns the address of the commit.

    The token is huggingface_hub's own (`hf auth login`, or HF_TOKEN). Raises NotFound without a card,
    ConfigError when the hub does not take it.
    """
    from huggingface_hub import HfApi

    for name in (*ADAPTER_FILES, "README.md"):
        if not (folder / name).is_file():
            raise NotFound(f"{folder} lacks {name}; make the folder with `sur publish`")
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        made = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(PUBLISHED),
            revision=revision,
            commit_message="SUR-adapter with its card",
        )
    except Exception as error:  # each version of huggingface_hub has another HTTP client, with errors of its own
        raise ConfigError(
            f"{repository} was not written ({type(error).__name__}: {error}). {folder} is ready; log in with "
            f"`hf auth login`, unset HF_HUB_OFFLINE, and push it with `hf upload {repository} {folder}`"
        ) from error
    return str(made)
