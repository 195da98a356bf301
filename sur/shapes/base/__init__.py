"""The diffusion model of the shapes world: how its parts were trained."""

from sur.support.openmp import spin_briefly

spin_briefly()  # its training is a command of its own
