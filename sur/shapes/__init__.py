"""The shapes world: a small complete world in which the adapter's effect can be measured exactly on a CPU."""
