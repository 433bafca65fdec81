"""The operators' admin: one module a noun. It reads scoped rows and writes through `cpm.services` only."""

from cpm.admin import (
    accounts,
    alerts,
    api_keys,
    audit,
    backups,
    explore_sessions,
    fleet,
    jobs,
    login,
    notifications,
    policies,
    recoveries,
    repositories,
    s3_copies,
    schedules,
    settings,
    snapshots,
    users,
    workers,
)

__all__ = [
    "accounts", "alerts", "api_keys", "audit", "backups", "explore_sessions", "fleet", "jobs", "login", "notifications", "policies", "recoveries",
    "repositories", "s3_copies", "schedules", "settings", "snapshots", "users", "workers",
]  # fmt: skip
