"""Faults of a data set that no single row shows to an encoder: duplicates, leakage, what was cut off, odd rows.

Each check is a generator of findings over rows; `sur.analysis.lint.lint` runs them on a store, or on a data source
before extraction.
"""
