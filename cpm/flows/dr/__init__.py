"""Copies in other regions and accounts, and the keys that they are encrypted with."""
