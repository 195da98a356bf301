"""The diffusion model of the shapes world: how its parts were trained."""
