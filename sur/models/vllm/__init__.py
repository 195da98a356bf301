"""LLMs served by vLLM: the connector inside its engine, the messages between both sides, the client, the launch.

Only `connector` imports vLLM, which has an environment of its own; it needs nothing of ours but this package, its
`protocol` and `final_norm`, and `sur.models.fingerprint`.
"""
