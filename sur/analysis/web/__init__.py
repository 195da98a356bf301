"""A small local web app to look into a store: `sur view`. It only reads, also while an extraction writes."""
