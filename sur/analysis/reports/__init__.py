"""Reports of stores and of runs, as pages and as text."""
