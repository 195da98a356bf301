"""SUR-adapters for diffusers pipelines, trained from cached features of large frozen models.

    data         rows: a narrative prompt, often with a complex prompt and a picture; curation makes such rows
    features     stage one: frozen models read the rows, once
    cache        the store of what they made, an open Zarr format
    adapter      the method: the adapter, its losses, attaching it to a pipeline
    training     stage two: an adapter from a store, without any large model
    evaluation   pictures with and without the adapter, and scores of them
    analysis     a look at what is there: stores, runs, layers, pages in a browser
    flows        the stages as Prefect flows
    cli          the command `sur`

Beneath them: models (what is known of frozen models), config (every setting), shapes (a synthetic world), support.

The names below are the public ones. They load their modules when they are first used, so `import sur` costs nothing:

    import sur

    config = sur.load_config("configs/shapes.yaml")
    sur.extract(config)                      # features into the store
    folder = sur.fit(config)                 # an adapter from the store
    adapter = sur.Adapter.from_pretrained(folder)
    sur.attach(adapter, pipe)                # any supported diffusers pipeline
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sur.adapter.adapter import Adapter
    from sur.adapter.attach import attach, detach
    from sur.cache import Store
    from sur.config.run import load_config
    from sur.features.extraction import extract
    from sur.training.fit import fit

__all__ = ["Adapter", "Store", "__version__", "attach", "detach", "extract", "fit", "load_config"]
__version__ = "0.1.0"

_MODULES = {
    "Adapter": "sur.adapter.adapter",
    "Store": "sur.cache",
    "attach": "sur.adapter.attach",
    "detach": "sur.adapter.attach",
    "extract": "sur.features.extraction",
    "fit": "sur.training.fit",
    "load_config": "sur.config.run",
}


def __getattr__(name: str) -> Any:
    """The public object of that name. Raises AttributeError for any other name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The public names, beside those that are loaded already."""
    return sorted({*globals(), *__all__})
