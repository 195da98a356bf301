"""Prefect flows: thin wrappers over the plain functions of `sur`; tasks pass paths and partition numbers."""
