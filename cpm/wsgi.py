"""WSGI entry point of the API and the admin."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cpm.settings")
application = get_wsgi_application()
# What is loaded now lives as long as the process; the collector need not look at it at every pass.
gc.collect()
gc.freeze()
