"""Stage two: fit an adapter to cached features."""
