"""The files of a store: in a local folder or in a bucket, behind one interface."""
