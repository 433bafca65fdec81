"""Reports: one definition each, and how PostgreSQL writes them as JSON and as CSV."""
