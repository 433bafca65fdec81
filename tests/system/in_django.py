"""Runs the `main` of a module that needs Django's models: `python -m tests.system.in_django MODULE ARGUMENTS…`."""

import importlib
import sys

import django

if __name__ == "__main__":
    django.setup()
    sys.exit(importlib.import_module(sys.argv[1]).main(sys.argv[2:]))
