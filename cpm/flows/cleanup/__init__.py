"""What ends: backups beyond their retention, what was asked to be deleted, strays, and old records."""
