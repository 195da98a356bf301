"""How flows run: Prefect's server, workers, deployments, start and stop, progress."""
