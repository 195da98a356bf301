"""From a model's name in a config to files on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sur.support.errors import NotFound

# What a hub repository must give for each purpose ("*" also matches "/"). A pipeline's repository may hold
# tens of gigabytes, of which its text encoder is a few hundred megabytes.
LLM_CONFIG = ("config.json",)
LLM_WEIGHTS = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors", "*.py")
LLM_TOKENIZER = tuple(files for files in LLM_WEIGHTS if files != "*.safetensors")
PIPELINE_CONFIG = ("model_index.json", "config.json", "*/config.json", "*/tokenizer_config.json")
TOKENIZER = (*PIPELINE_CONFIG, "tokenizer*")
TEXT_WEIGHTS = (*PIPELINE_CONFIG, "text_encoder*.safetensors", "text_encoder*.json", "tokenizer*")
VAE_WEIGHTS = (*PIPELINE_CONFIG, "vae/diffusion_pytorch_model*.safetensors", "vae/*.index.json")
DENOISER_WEIGHTS = (
    *PIPELINE_CONFIG,
    *(
        f"{part}/{files}"
        for part in ("unet", "transformer")
        for files in ("diffusion_pytorch*.safetensors", "*.index.json")
    ),
    "scheduler/*",
)
PIPELINE_WEIGHTS = (*TEXT_WEIGHTS, *VAE_WEIGHTS, *DENOISER_WEIGHTS)
# Other precisions and layouts of the same weights; nothing here reads them.
NEVER = ("*.fp16.*", "*.non_ema.*", "*onnx*", "*openvino*", "original/*", "consolidated*", "*flax*")

PACKAGE = "package:"  # before the name of an installed package, and of a folder inside it


@dataclass(frozen=True)
class Located:
    """A model's folder on disk, and the GGUF file in it when that is what holds the weights."""

    folder: Path
    gguf_file: str | None = None


def locate(
    model: str,
    revision: str | None = None,
    gguf_file: str | None = None,
    needed: Sequence[str] = LLM_WEIGHTS,
    download: bool = True,
) -> Located:
    """Find a model: a folder, a .gguf file, `package:<name>/<folder>` of an installed package, or a hub id.

    Of a hub repository only the `needed` files are fetched; with HF_HUB_OFFLINE=1, or without `download`, nothing is.

    Raises: NotFound when there is no such model, with what was looked for.
    """
    if model.startswith(PACKAGE):
        return _with_gguf(_package_folder(model.removeprefix(PACKAGE)), gguf_file)
    path = Path(model).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise NotFound(f"model {model!r} is a file but not a .gguf file; give the model's folder")
        return Located(path.parent, path.name)
    if path.is_dir():
        return _with_gguf(path, gguf_file)
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise NotFound(f"there is no model at {path.absolute()}; correct the path")
    return _with_gguf(_hub_folder(model, revision, (gguf_file,) if gguf_file else needed, download), gguf_file)


def library_name(model: str | Path) -> str | Path:
    """A model's name as other libraries read it: the folder of `package:...`, every other name as it is.

    Raises: NotFound as `locate`.
    """
    if isinstance(model, str) and model.startswith(PACKAGE):
        return _package_folder(model.removeprefix(PACKAGE))
    return model


def is_hub_id(model: str) -> bool:
    """Whether a model's name is for the hub: no folder or file here, and none of an installed package."""
    return not model.startswith(PACKAGE) and not Path(model).exists()


def _with_gguf(folder: Path, gguf_file: str | None) -> Located:
    if gguf_file is not None:
        if not (folder / gguf_file).is_file():
            raise NotFound(f"there is no file {gguf_file!r} in {folder}; found {_names(folder)}")
        return Located(folder, gguf_file)
    if (folder / "config.json").is_file() or (folder / "model_index.json").is_file():
        return Located(folder)
    ggufs = sorted(file.name for file in folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return Located(folder, ggufs[0])
    raise NotFound(
        f"{folder} holds no config.json, no model_index.json and not exactly one .gguf file (found "
        f"{_names(folder)}); correct the path, or name the file with gguf_file"
    )


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())[:12]


def _beside(folder: Path) -> str:
    return f"; found {_names(folder.parent)}" if folder.parent.is_dir() else ""


def _package_folder(name: str) -> Path:
    package, _, inside = name.partition("/")
    spec = importlib.util.find_spec(package)  # finds the folder without running the package's code
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(f"package {package!r} is not installed; pip install {package.replace('_', '-')}")
    folder = Path(spec.submodule_search_locations[0]) / inside
    if not folder.is_dir():
        raise NotFound(f"package {package!r} has no folder {inside!r}{_beside(folder)}")
    return folder


def _hub_folder(model: str, revision: str | None, needed: Sequence[str], download: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            model, revision=revision, allow_patterns=list(needed), ignore_patterns=list(NEVER),
            local_files_only=not download,
        )  # fmt: skip
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        raise NotFound(
            f"model {model!r} is no folder here, and the hub gave none ({type(error).__name__}: {said}); correct the "
            "path or the name, download it first, or check HF_HUB_OFFLINE"
        ) from error
    return Path(folder)
