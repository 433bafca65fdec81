"""CPM: backup and disaster recovery for AWS workloads. The domain package; it knows nothing of REST or Celery."""
