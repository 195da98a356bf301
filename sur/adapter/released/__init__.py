"""`variant: released`: the authors' adapter and losses, bug for bug (github.com/Qrange-group/SUR-adapter).

docs/released.md says what differs from ours and what that does to pictures.
"""
