"""Django's PostgreSQL backend with a health check that costs no round trip; named as `ENGINE` in the settings."""
