"""The contents of a store: rows, data sets, features and assets, and the catalog of them."""
