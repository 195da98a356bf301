"""A small local web app to look into a store: `sur view`. Reads only, and beside a running extraction."""
