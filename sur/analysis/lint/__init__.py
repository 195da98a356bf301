"""Faults of a data set that no encoder sees in a single row: duplicates, leakage, cut-off prompts, odd rows.

Each check is a generator of findings over rows; `sur.analysis.lint.lint` runs them on a store, or on a data source
before extraction.
"""
