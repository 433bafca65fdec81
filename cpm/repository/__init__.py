"""A deduplicating, encrypted block store in any S3 or directory. FORMAT.md is its law; nothing here knows Django."""
