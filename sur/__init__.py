"""The method: rows, encoders, adapter, losses, trainer, attach, evaluation. Nothing here knows Prefect."""
