"""Where the models are that made a store's features: asked of the run's configuration beside the store.

A feature's identity names a model by its slug and its weights by their fingerprint, not by a folder. A run's resolved
`config.yaml`, which lies in the run folder as the store does by default, has the folder. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import Store
from sur.inspection.errors import NotInStore

if TYPE_CHECKING:
    from sur.config import RunConfig


def config_beside(store: Store) -> RunConfig | None:
    """The configuration of the run whose folder the store lies in, None without one that can be read."""
    from sur.config import load_config
    from sur.errors import ConfigError
    from sur.settings import RESOLVED_NAME

    if isinstance(store.path, str):
        return None
    try:
        return load_config(store.path.parent / RESOLVED_NAME)
    except ConfigError:
        return None


def find_vae(store: Store, identity: Mapping[str, Any], given: str | Path | None = None) -> Path:
    """Folder of the VAE that made a latent feature: `given` (a pipeline's or the VAE's own), else the run's.

    Raises: NotInStore saying what was looked at, when it is not there or has other weights.
    """
    from sur.encoders.locate import VAE_WEIGHTS, locate
    from sur.encoders.vae import VAEConfig, VAEEncoder

    def folder(model: str, revision: str | None) -> Path:
        there = locate(model, revision, needed=VAE_WEIGHTS, download=False).folder
        return VAEEncoder(VAEConfig(model=str(there))).folder(VAE_WEIGHTS)

    config = None if given else config_beside(store)
    model = str(given) if given else None
    revision = None
    if config is not None and config.vae is not None:
        model, revision = config.vae.model, config.vae.revision
    return _of_these_weights(folder, model, revision, identity, "VAE")


def _of_these_weights(
    folder: Callable[[str, str | None], Path],
    model: str | None,
    revision: str | None,
    identity: Mapping[str, Any],
    what: str,
) -> Path:
    from sur.fingerprint import weights_fingerprint

    name = identity.get("model", "?")
    if model is None:
        raise NotInStore(f"no run configuration lies beside the store to say where the {what} {name!r} is")
    try:
        found = folder(model, revision)
        fingerprint = weights_fingerprint(found)
    except (FileNotFoundError, ValueError) as error:
        raise NotInStore(f"the {what} {name!r} is not here: {error}") from error
    if fingerprint != identity.get("weights"):
        raise NotInStore(
            f"the {what} in {found} has weights {fingerprint[:8]}, the feature was made with "
            f"{str(identity.get('weights'))[:8]}"
        )
    return found
