"""What a training leaves to be looked at: curves, plots, grids of pictures."""
