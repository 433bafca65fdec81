"""What people are told: alerts, notifications and the daily summary."""
