"""The norm behind the last layer: transformers' hidden state L has passed it, vLLM's has not.

It is made by transformers' own class for the model and holds the checkpoint's weights, so whatever a family does
(Gemma adds one to the scale, others have a bias) is done here too.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from sur.models.fingerprint import weight_files

NAMES = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f")


def final_norm(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The final norm of the model in a folder, in evaluation mode, on the CPU.

    Raises: ValueError when the model has no module, or several, that may be the final norm, or when its weights are
    missing; the message says why the last layer is then refused.
    """
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModel.from_config(config, dtype=dtype)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    norms = [(name, module) for name, module in decoder.named_children() if name in NAMES]
    if len(norms) != 1:
        raise ValueError(
            f"the last layer of {type(model).__name__} cannot be served: vLLM gives it before the final norm, and "
            f"which of {[name for name, _ in decoder.named_children()]} that is is not known; ask for a lower layer, "
            "or use llm.backend=hf"
        )
    name, module = norms[0]
    module = module.to_empty(device="cpu")
    weights = {key: _tensor(folder, name, key) for key in module.state_dict()}
    module.load_state_dict({key: value.to(dtype) for key, value in weights.items()})
    return module.eval().requires_grad_(False)


def _tensor(folder: Path, module: str, key: str) -> torch.Tensor:
    """The one tensor of the checkpoint whose name ends in `<module>.<key>` and lies in no layer."""
    suffix = f"{module}.{key}"
    candidates = []
    for file in weight_files(folder):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                if (name == suffix or name.endswith(f".{suffix}")) and not any(
                    part.isdigit() for part in name.split(".")
                ):
                    candidates.append((name, opened.get_tensor(name)))
    if len(candidates) != 1:
        raise ValueError(
            f"the last layer cannot be served: expected one tensor {suffix} in {folder}, found "
            f"{[name for name, _ in candidates]}; ask for a lower layer, or use llm.backend=hf"
        )
    return candidates[0][1]
