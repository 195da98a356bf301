"""Distances between predicted and target states, chosen by name.

All return a scalar that weighs every counted position equally, so values do not depend on batch or length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sur.config.losses import Measure


def mean_distance(
    measure: Measure,
    predicted: Float[Tensor, "positions dim"],
    target: Float[Tensor, "positions dim"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Mean distance over positions.

    kl: KL(target || predicted) of softmaxes over `dim` at `temperature`, times its square (Hinton et al. 2015).
    mse: mean square over positions and dim. cosine: 1 - cosine. contrastive: InfoNCE, where each position's
    target is to be told from the other positions' targets by its cosine / `temperature`.
    Raises ValueError for an unknown measure or shapes that differ.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} must have one shape")
    if len(predicted) == 0:
        return predicted.sum()
    predicted, target = predicted.float(), target.float()  # small differences vanish in half precision
    if measure == "mse":
        return F.mse_loss(predicted, target)
    if measure == "cosine":
        return (1 - F.cosine_similarity(predicted, target, dim=-1)).mean()
    if measure == "kl":
        log_predicted = (predicted / temperature).log_softmax(-1)
        log_target = (target / temperature).log_softmax(-1)
        return F.kl_div(log_predicted, log_target, log_target=True, reduction="batchmean") * temperature**2
    if measure == "contrastive":
        logits = F.normalize(predicted, dim=-1) @ F.normalize(target, dim=-1).T / temperature
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
    raise ValueError(f"unknown measure {measure!r}, expected kl, mse, cosine or contrastive")


def real_tokens(length: Tensor, tokens: int) -> Bool[Tensor, "batch tokens"]:
    """True at the first `length[i]` tokens of each row."""
    return torch.arange(tokens, device=length.device)[None] < length[:, None]
