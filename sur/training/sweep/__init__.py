"""Many trainings from one store, and their comparison."""
