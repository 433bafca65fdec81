"""What CPM does with backups in S3: copying them there, keeping, archiving and deleting the copies."""
