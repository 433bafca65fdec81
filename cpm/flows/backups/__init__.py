"""Backups: planning, snapshots and images, scripts on the server and on instances, and the end."""
