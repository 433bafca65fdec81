"""Explore sessions: opening volumes to look into, and closing them."""
