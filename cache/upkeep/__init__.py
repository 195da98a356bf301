"""Keeping a store in order: verify, repair, describe."""
