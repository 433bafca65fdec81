"""The whole stack on one machine: PostgreSQL and Redis from wheels, our own processes, and what supervises them."""
