"""Prefect flows: thin wrappers over the plain functions of `sur`; tasks pass paths and partition numbers."""

from sur.support.openmp import spin_briefly

spin_briefly()  # a worker imports this package before torch
