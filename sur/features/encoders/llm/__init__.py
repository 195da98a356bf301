"""The large language model as an encoder: layers, pooling, and the engines that run it."""
