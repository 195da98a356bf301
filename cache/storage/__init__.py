"""Where the bytes lie: a local folder or a bucket, under one interface."""
