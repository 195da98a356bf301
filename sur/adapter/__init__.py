"""The method: the adapter, its losses, and attaching it to a pipeline."""
