"""Plain functions that look into a store, for the command line, the web app and reports.

No module here imports a model library before it uses a model, and none writes to a store.
"""
