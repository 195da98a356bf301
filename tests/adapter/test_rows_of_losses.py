"""Which rows enter which loss: what one loss needs of a row keeps the row out of no other."""

import pytest
import torch
from tiny_run import save_config_file
from torch import nn

from sur.adapter.base import AdapterOutput
from sur.adapter.losses import Objective
from sur.adapter.losses.batch import RowBatch
from sur.config.losses import LossConfig
from sur.config.run import load_config
from sur.models.denoiser import Noised
from sur.training.batches import needed_features

PAIRED = torch.tensor([True, True, False, False, True])
PICTURED = torch.tensor([True, False, True, False, True])
DENOISING = {"denoising": {"weight": 1.0}}


class MeanDenoiser(nn.Module):
    """Predicts the mean of a row's states, wherever; the target is 0."""

    prediction = "epsilon"

    def noise(self, mean, _logvar, _seeds=None, _offset=0.0):
        return Noised(mean, mean, mean, torch.zeros(len(mean)), None)

    def target(self, noised):
        return torch.zeros_like(noised[0])

    def forward(self, noised, text):
        return text.states.mean((1, 2))[:, None, None, None].expand_as(noised[0])


def rows_with_gradient(loss: dict, step: int = 0, **changes) -> dict[str, list[int]]:
    """For each loss, the rows whose states get a gradient from it."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(5, 3, 8, generator=generator).requires_grad_()
    latents = torch.zeros(5, 4, 2, 2)
    rows = RowBatch(states, torch.full((5,), 3), complex=torch.randn(5, 3, 8, generator=generator), paired=PAIRED,
                    latents=(latents, latents), pictured=PICTURED)  # fmt: skip
    rows = RowBatch(**{**vars(rows), **changes})
    objective = Objective(LossConfig.model_validate(loss), 8, denoiser=MeanDenoiser())  # pyright: ignore
    found = {}
    for name, value in objective(rows, AdapterOutput(states, states), step).items():
        (gradient,) = torch.autograd.grad(value, states, retain_graph=True)
        found[name] = gradient.abs().sum((1, 2)).nonzero().flatten().tolist()
    return found


@pytest.mark.parametrize("form", ["tokens", "denoiser"])
def test_a_picture_without_a_complex_prompt_is_denoised_beside_an_alignment(form):
    found = rows_with_gradient({"alignment": {"form": form, "measure": "mse"}, **DENOISING})
    assert found == {"alignment": [0, 1, 4] if form == "tokens" else [0, 4], "denoising": [0, 2, 4]}


def test_without_pictures_or_pairs_each_loss_that_is_on_is_zero():
    none = torch.zeros(5, dtype=torch.bool)
    both = {"alignment": {"form": "denoiser"}, **DENOISING}
    assert rows_with_gradient(both, pictured=none) == {"alignment": [], "denoising": []}
    assert rows_with_gradient(both, paired=none) == {"alignment": [], "denoising": [0, 2, 4]}
    assert rows_with_gradient({"alignment": {"form": "denoiser"}}, paired=none) == {"alignment": []}


def test_before_its_first_step_denoising_takes_no_rows():
    late = {"alignment": {"form": "denoiser"}, "denoising": {"weight": 1.0, "first_step": 3}}
    assert rows_with_gradient(late) == {"alignment": [0, 4]}
    assert rows_with_gradient(late, step=3) == {"alignment": [0, 4], "denoising": [0, 2, 4]}


@pytest.mark.parametrize(
    ("loss", "required", "optional"),
    [
        ("{alignment: {form: attention}}", {"complex"}, set()),
        ("{alignment: {form: denoiser}}", {"complex", "vae"}, set()),
        ("{alignment: {form: none}, denoising: {weight: 1}}", {"vae"}, set()),
        ("{alignment: {form: attention}, denoising: {weight: 1}}", set(), {"complex", "vae"}),
        ("{alignment: {form: tokens, weight: 0}, denoising: {weight: 1}}", {"vae"}, {"complex"}),
        ("{alignment: {form: denoiser}, denoising: {weight: 1}}", {"vae"}, {"complex"}),
        ("{alignment: {form: attention}, distillation: {form: pooled}}", set(), {"complex"}),
        ("{alignment: {form: denoiser}, distillation: {form: pooled}}", set(), {"complex", "vae"}),
    ],
)
def test_a_row_needs_what_every_loss_reads_and_may_lack_the_rest(tmp_path, loss, required, optional):
    config = load_config(save_config_file(tmp_path, tmp_path / "models", tmp_path), [f"loss={loss}"])
    features = needed_features(config)
    kind = {"text.pipe.complex": "complex", "vae.pipe.32": "vae"}
    assert {kind[name] for name in features.required if name in kind} == required
    assert {kind[name] for name in features.optional} == optional
    assert "text.pipe.simple" in features.required
