"""The tag of every run."""

TAG = "sur"  # the server's automation finds the runs by it; flows that a flow calls get it too
