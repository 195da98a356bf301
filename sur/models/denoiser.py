"""The frozen denoiser of each family: its weights, how latents are noised for it, and how it is called.

Latents come from the cache as mean and log-variance; they are sampled, scaled and noised here, at train time. Only the
text states carry a gradient; the denoiser's weights are frozen.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sur.models.families import FLUX, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Family, family_in
from sur.models.libraries import quiet_libraries
from sur.models.locate import DENOISER_WEIGHTS, locate
from sur.support.errors import ConfigError

Prediction = Literal["epsilon", "v_prediction", "flow"]
FLUX_GUIDANCE = 1.0  # what guidance-distilled Flux is told while training: pictures are as they are


class Text(NamedTuple):
    """What a denoiser is told: states (batch, tokens, dim), pooled (batch, dim), mask (batch, tokens) of bool."""

    states: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None


class Noised(NamedTuple):
    """Latents with noise: noisy, noise, clean (batch, c, h, w); timesteps (batch,), whole numbers but for flows.

    snr: signal to noise ratio (batch,), None for flows.
    """

    noisy: Tensor
    noise: Tensor
    clean: Tensor
    timesteps: Tensor
    snr: Tensor | None


_Parts = TypeVar("_Parts", Text, Noised)


def keep_rows(parts: _Parts, chosen: Bool[Tensor, " batch"]) -> _Parts:
    """Some rows of everything that is there."""
    return type(parts)(*(None if part is None else part[chosen] for part in parts))  # pyright: ignore


class FrozenDenoiser(nn.Module):
    """A pipeline's UNet or transformer with its training schedule. No gradient reaches its weights."""

    latents_mean: Tensor  # (channels, 1, 1), as `latents_std`; 0 and 1 for a VAE that has neither
    latents_std: Tensor

    def __init__(
        self, model: Any, schedule: Any, family: Family = STABLE_DIFFUSION, vae: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        refuse_other_inputs(model.config)
        vae = vae or {}
        self.model = model.eval().requires_grad_(False)
        self.schedule, self.family = schedule, family
        self.scaling_factor = float(vae.get("scaling_factor", 0.18215))
        self.shift_factor = float(vae.get("shift_factor") or 0.0)
        for name, default in (("latents_mean", 0.0), ("latents_std", 1.0)):  # a channel each, where the VAE has them
            channels = torch.tensor(vae.get(name) or [default], dtype=torch.float32).flatten()
            self.register_buffer(name, channels[:, None, None], persistent=False)
        self.pixels_per_latent = 2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1)
        self.prediction: Prediction = "flow" if family.flow else schedule.config.prediction_type
        if self.prediction not in ("epsilon", "v_prediction", "flow"):
            raise ConfigError(f"prediction type {self.prediction!r} is not supported, expected epsilon or v_prediction")

    @classmethod
    def from_pipeline(
        cls, model: str, revision: str | None = None, dtype: torch.dtype = torch.float32
    ) -> FrozenDenoiser:
        """Load only the denoiser, its scheduler's config and the VAE's scaling of a pipeline (folder or hub id)."""
        import diffusers

        folder = denoiser_folder(model, revision)
        index = json.loads((folder / "model_index.json").read_text())
        family = family_in(folder)
        kind = getattr(diffusers, str(index[family.denoiser][1]), None)
        if kind is None:
            raise ConfigError(
                f"{folder}/model_index.json names the {family.denoiser} {index[family.denoiser][1]}, "
                "which this version of diffusers does not have; update diffusers"
            )
        with quiet_libraries():
            schedule = training_schedule(
                json.loads((folder / "scheduler" / "scheduler_config.json").read_text()), family
            )
            denoiser = kind.from_pretrained(folder, subfolder=family.denoiser, torch_dtype=dtype, use_safetensors=True)
        vae = json.loads((folder / "vae" / "config.json").read_text())
        return cls(denoiser, schedule, family, vae)

    def train(self, mode: bool = True) -> FrozenDenoiser:
        """Stay in evaluation mode, whatever the objective around it is put into."""
        return super().train(False)

    def noise(
        self,
        mean: Float[Tensor, "batch c h w"],
        logvar: Float[Tensor, "batch c h w"],
        seeds: Int[Tensor, " batch"] | None = None,
        offset: float = 0.0,
    ) -> Noised:
        """Sample latents from mean and log-variance, scale them and add noise at random timesteps.

        A row's draws depend on its seed alone; without seeds they come from torch's global generator.
        offset: size of a random constant that is added to each channel's noise, so that overall brightness is learnt
        (Guttenberg 2023).
        """
        steps = self.schedule.config.num_train_timesteps
        drawn = row_draws(seeds, mean.shape[1:], steps) if seeds is not None else global_draws(mean, steps, offset > 0)
        spread, noise, constant, timesteps = (part.to(mean.device) for part in drawn)
        clean = (mean + torch.exp(0.5 * logvar) * spread - self.shift_factor - self.latents_mean) / self.latents_std
        clean = clean * self.scaling_factor
        if offset:
            noise = noise + offset * constant
        if self.prediction == "flow":  # normal quantiles, so that noise levels are logit-normal
            sigma = self._shifted(torch.special.ndtri((timesteps + 0.5) / steps).sigmoid(), clean)
            part = sigma[:, None, None, None]
            return Noised((1 - part) * clean + part * noise, noise, clean, sigma * steps, None)
        kept = self.schedule.alphas_cumprod.to(clean.device)[timesteps]
        return Noised(self.schedule.add_noise(clean, noise, timesteps), noise, clean, timesteps, kept / (1 - kept))

    def target(self, noised: Noised) -> Float[Tensor, "batch c h w"]:
        """What the denoiser was trained to predict: noise, velocity (Salimans & Ho 2022), or noise minus picture."""
        if self.prediction == "flow":
            return noised.noise - noised.clean
        if self.prediction == "epsilon":
            return noised.noise
        return self.schedule.get_velocity(noised.clean, noised.noise, noised.timesteps)

    def forward(self, noised: Noised, text: Text) -> Float[Tensor, "batch c h w"]:
        """The denoiser's prediction given `text`, float32 unless autocast says otherwise."""
        dtype = self.model.dtype
        noisy, states = noised.noisy.to(dtype), text.states.to(dtype)
        pooled = None if text.pooled is None else text.pooled.to(dtype)
        if self.family is STABLE_DIFFUSION_3:
            made = self.model(noisy, states, pooled, noised.timesteps.to(dtype)).sample
        elif self.family is FLUX:
            made = self._flux(noisy, states, pooled, noised.timesteps.to(dtype))
        elif self.family.denoiser == "transformer":
            made = self._pixart(noisy, states, text.mask, noised.timesteps)
        else:
            made = self.model(noisy, noised.timesteps, states, added_cond_kwargs=self._added(noisy, pooled)).sample
        return made.float()

    def _added(self, noisy: Tensor, pooled: Tensor | None) -> dict[str, Tensor] | None:
        """SDXL's further inputs: pooled states, and sizes of a square picture that was not cropped."""
        if pooled is None:
            return None
        height, width = (side * self.pixels_per_latent for side in noisy.shape[-2:])
        sizes = [height, width, 0, 0, height, width]  # original size, corner, target size
        times = torch.tensor(sizes, dtype=noisy.dtype, device=noisy.device).expand(len(noisy), -1)
        return {"text_embeds": pooled, "time_ids": times}

    def _pixart(self, noisy: Tensor, states: Tensor, mask: Tensor | None, timesteps: Tensor) -> Tensor:
        sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.model.config.sample_size == 128:  # as the pipeline does
            height, width = (side * self.pixels_per_latent for side in noisy.shape[-2:])
            given = torch.tensor([[height, width]], dtype=noisy.dtype, device=noisy.device)
            ratio = torch.full((len(noisy), 1), height / width, dtype=noisy.dtype, device=noisy.device)
            sizes = {"resolution": given.expand(len(noisy), -1), "aspect_ratio": ratio}
        made = self.model(
            noisy, states, timesteps, added_cond_kwargs=sizes,
            encoder_attention_mask=None if mask is None else mask.to(noisy.dtype),
        ).sample  # fmt: skip
        return made[:, : noisy.shape[1]]  # the rest is a variance

    def _flux(self, noisy: Tensor, states: Tensor, pooled: Tensor | None, timesteps: Tensor) -> Tensor:
        """Latents in patches of 2 x 2 with their places."""
        batch, channels, height, width = noisy.shape
        rows, columns = height // 2, width // 2
        packed = nn.functional.pixel_unshuffle(noisy, 2).flatten(2).transpose(1, 2)
        places = torch.zeros(rows, columns, 3, device=noisy.device, dtype=noisy.dtype)
        places[..., 1] = torch.arange(rows, device=noisy.device)[:, None]
        places[..., 2] = torch.arange(columns, device=noisy.device)
        guidance = None
        if self.model.config.guidance_embeds:
            guidance = torch.full((batch,), FLUX_GUIDANCE, device=noisy.device, dtype=noisy.dtype)
        made = self.model(
            packed, states, pooled, timesteps / self.schedule.config.num_train_timesteps,
            img_ids=places.flatten(0, 1), txt_ids=places.new_zeros(states.shape[1], 3), guidance=guidance,
        ).sample  # fmt: skip
        return nn.functional.pixel_shuffle(made.transpose(1, 2).unflatten(2, (rows, columns)), 2)

    def _shifted(self, sigma: Float[Tensor, " batch"], clean: Tensor) -> Float[Tensor, " batch"]:
        """Noise levels as the scheduler shifts them, more for larger pictures (Esser et al. 2024, section 5.3.2)."""
        config = self.schedule.config
        shift = config.shift
        if config.get("use_dynamic_shifting"):
            tokens = clean.shape[-2] * clean.shape[-1] / 4
            few, many = config.base_image_seq_len, config.max_image_seq_len
            slope = (config.max_shift - config.base_shift) / (many - few)
            shift = math.exp(config.base_shift + slope * (tokens - few))
        return shift * sigma / (1 + (shift - 1) * sigma)


def global_draws(mean: Tensor, steps: int, constant: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two normal draws like `mean`, (where asked for) one a channel, and timesteps, from torch's global generator."""
    spread, noise = torch.randn_like(mean), torch.randn_like(mean)
    timesteps = torch.randint(steps, (len(mean),), device=mean.device)
    return spread, noise, torch.randn_like(mean[:, :, :1, :1]) if constant else mean[:, :, :1, :1], timesteps


def row_draws(seeds: Int[Tensor, " batch"], shape: Sequence[int], steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same of a generator a row: (batch, *shape) twice, (batch, channels, 1, 1), timesteps (batch,)."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
    normal = torch.stack([torch.randn(2, *shape, generator=each) for each in generators], dim=1)
    timesteps = torch.stack([torch.randint(steps, (), generator=each) for each in generators])
    constant = torch.stack([torch.randn(shape[0], 1, 1, generator=each) for each in generators])
    return normal[0], normal[1], constant, timesteps


def denoiser_folder(model: str, revision: str | None = None) -> Path:
    """The pipeline's folder on this machine, with denoiser, scheduler and the VAE's config.

    Raises FileNotFoundError when there is no such model.
    """
    return locate(model, revision, needed=DENOISER_WEIGHTS).folder


def weights_folder(folder: Path) -> Path:
    """Where in a pipeline's folder the denoiser's weights are."""
    return folder / family_in(folder).denoiser


def refuse_other_inputs(config: Mapping[str, Any]) -> None:
    """Refuse a denoiser, by its config, that is given more than noisy latents, a timestep and text.

    Raises ConfigError naming the input.
    """
    asked = {
        "addition_embed_type": (None, "text_time"),  # other embeddings, of pictures too
        "encoder_hid_dim_type": (None, "text_proj"),  # a picture prompt
        "class_embed_type": (None,),
        "num_class_embeds": (None,),
        "time_cond_proj_dim": (None,),  # the strength of guidance, of distilled models
        "attention_type": (None, "default"),  # places of things in the picture
    }
    others = [f"{key} = {config[key]!r}" for key, known in asked.items() if config.get(key) not in known]
    out = config.get("out_channels") or config.get("in_channels")
    if config.get("in_channels") not in (None, out, (out or 0) // 2):  # half of what comes out may be a variance
        others.append(f"in_channels = {config['in_channels']} for latents of {out}")
    if others:
        raise ConfigError(
            f"this denoiser also asks for what no text gives ({', '.join(others)}); "
            "set loss.alignment.form=tokens, loss.denoising.weight=0 and no distillation form `teacher`"
        )


def training_schedule(config: Mapping[str, Any], family: Family) -> Any:
    """The schedule that a denoiser was trained with: a DDPMScheduler, or a FlowMatchEulerDiscreteScheduler for flows.

    config: of the pipeline's scheduler, whatever sampler that is. The schedule is in its betas, or in its shift for
    flows; what the config leaves out has the defaults of its own class. A scheduler that scales the denoiser's inputs,
    or means other noise levels, has no such betas and is refused.

    Raises ConfigError naming the scheduler.
    """
    import diffusers

    name = config.get("_class_name", "")
    kind = getattr(diffusers, name, None)
    parameters = inspect.signature(kind.__init__).parameters if kind is not None else {}
    if family.flow:
        known = name.startswith("FlowMatch") and not config.get("invert_sigmas")
    else:
        known = "beta_schedule" in parameters and not {"snr_shift_scale", "sigma_data"} & set(parameters)
        known = known and not config.get("use_flow_sigmas")
    if not known:
        wanted = "a flow's, such as FlowMatchEuler" if family.flow else "of betas, such as DDPM, DDIM or Euler"
        raise ConfigError(
            f"the noise of {name or 'this scheduler'} is not known here ({family.name} is trained with schedules "
            f"{wanted}); set loss.alignment.form=tokens, loss.denoising.weight=0 and no distillation form `teacher`"
        )
    made = diffusers.FlowMatchEulerDiscreteScheduler if family.flow else diffusers.DDPMScheduler
    own_defaults = {key: each.default for key, each in parameters.items() if each.default is not each.empty}
    chosen = {key: value for key, value in config.items() if not key.startswith("_")}
    return made.from_config(own_defaults | chosen)
