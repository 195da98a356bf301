"""A run's report, its example pictures, and the model card of a published adapter."""
