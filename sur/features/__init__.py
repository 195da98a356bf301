"""Stage one: run the frozen models once and write their features into the store."""
