"""The bytes of a store: array specifications, metadata, shards, codecs, checksums, receipts."""
