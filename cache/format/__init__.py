"""The bytes in the files of a store: specifications, metadata, shards, codecs, checksums and receipts."""
