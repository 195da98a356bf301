"""The released method once more, from its formulas: plain tensor operations on a dict of weights, no nn modules."""

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def drop(x: Tensor, p: float) -> Tensor:
    """Inverted dropout with a mask from torch's global generator."""
    return x if p == 0 else x * torch.empty_like(x).bernoulli_(1 - p) / (1 - p)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


def attend_across_the_batch(w: Weights, name: str, x: Tensor, p: float, heads: int = 8) -> Tensor:
    """Every token place has an attention of its own, in which the rows of the batch look at one another."""
    rows, tokens, dim = x.shape
    projected = x @ w[f"{name}.in_proj_weight"].T + w[f"{name}.in_proj_bias"]
    q, k, v = projected.reshape(rows, tokens, 3, heads, dim // heads).permute(2, 1, 3, 0, 4)
    scores = torch.einsum("thid,thjd->thij", q, k) / math.sqrt(dim // heads)
    shares = drop(torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True), p)
    read = torch.einsum("thij,thjd->ithd", shares, v).reshape(rows, tokens, dim)
    return linear(w, f"{name}.out_proj", read)


def adapter(w: Weights, x: Tensor, weight: float, layers: int = 2, p: float = 0.0) -> tuple[Tensor, Tensor]:
    """(states for the denoiser, hidden states)."""
    h = x
    for layer in range(layers):
        name = f"transformer_encoder.layers.{layer}"
        h = norm(w, f"{name}.norm1", h + drop(attend_across_the_batch(w, f"{name}.self_attn", h, p), p))
        inner = drop(linear(w, f"{name}.linear1", h).clamp_min(0), p)
        h = norm(w, f"{name}.norm2", h + drop(linear(w, f"{name}.linear2", inner), p))
    scores = linear(w, "attention.query_layer", h) @ linear(w, "attention.key_layer", x).transpose(1, 2)
    scores = torch.exp(scores / math.sqrt(x.shape[-1]))
    a = scores / scores.sum(-1, keepdim=True) @ x + x
    a = linear(w, "attention.output_layer.2", linear(w, "attention.output_layer.0", a).clamp_min(0)) + a
    return weight * linear(w, "fc", a) + (1 - weight) * x, h


def divergence(ours: Tensor, target: Tensor) -> Tensor:
    """Sum over rows, tokens and dim of p log(p / q), p of ours and q of the target, over the rows."""
    p = torch.exp(ours) / torch.exp(ours).sum(-1, keepdim=True)
    q = torch.exp(target) / torch.exp(target).sum(-1, keepdim=True)
    return (p * (p.log() - q.log())).sum() / len(ours)


def denoising(unet, betas: Tensor, mean: Tensor, logvar: Tensor, scaling: float, states: Tensor) -> Tensor:
    """Mean square error of the noise that the frozen denoiser predicts, given a copy of the states."""
    latents = scaling * (mean + (logvar / 2).exp() * torch.randn_like(mean))
    noise = torch.randn_like(latents)
    timesteps = torch.randint(len(betas), (len(latents),))
    kept = torch.cumprod(1 - betas, 0)[timesteps].to(latents.dtype)[:, None, None, None]
    predicted = unet(kept.sqrt() * latents + (1 - kept).sqrt() * noise, timesteps, states.detach()).sample
    return (predicted - noise).square().mean()


class AdamW:
    """Loshchilov and Hutter 2019 on gradients clipped to a norm; weights without a gradient are left alone."""

    def __init__(
        self, weights: Weights, rate: float, decay: float, betas: tuple[float, float], max_norm: float
    ) -> None:
        self.weights, self.rate, self.decay, self.betas, self.max_norm = weights, rate, decay, betas, max_norm
        self.first = {name: torch.zeros_like(value) for name, value in weights.items()}
        self.second = {name: torch.zeros_like(value) for name, value in weights.items()}
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: dict[str, Tensor | None]) -> None:
        self.steps += 1
        one, two = self.betas
        known = {name: g for name, g in gradients.items() if g is not None}
        norm = torch.stack([g.square().sum() for g in known.values()]).sum().sqrt()
        clip = min(1.0, self.max_norm / (float(norm) + 1e-6))
        for name, gradient in known.items():
            gradient = gradient * clip
            self.first[name] = one * self.first[name] + (1 - one) * gradient
            self.second[name] = two * self.second[name] + (1 - two) * gradient.square()
            mean = self.first[name] / (1 - one**self.steps)
            scale = (self.second[name] / (1 - two**self.steps)).sqrt() + 1e-8
            weight = self.weights[name]
            weight.copy_(weight * (1 - self.rate * self.decay) - self.rate * mean / scale)
