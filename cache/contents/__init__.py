"""What a store holds: rows, data sets, features and the catalog of them."""
