"""The queues, which scale apart. A step kind names the one it runs in."""

BACKUP, DR, S3, RECOVERY, CONTROL = "backup", "dr", "s3", "recovery", "control"
NAMES = (CONTROL, BACKUP, DR, S3, RECOVERY)
