"""S3 sync: keeps a bucket, or a folder of one, as the mirror of another, copying only what changed."""
