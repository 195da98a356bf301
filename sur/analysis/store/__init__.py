"""What a store holds, looked at closely: plain functions for the command line, the web app and reports.

No module here imports a model library before a model is really used, and none writes to a store.
"""
