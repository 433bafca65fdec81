"""Django settings. Everything that differs between servers comes from the environment; nothing else reads it.

CPM_DATABASE_URL       PostgreSQL, e.g. postgresql://user:password@host:5432/cpm (or a socket folder as host)
CPM_REDIS_URL          Redis or Valkey, e.g. redis://:password@host:6379/0 or redis+socket:///path?virtual_host=0
CPM_DATA               folder for scripts and files of this server
CPM_SECRET_KEY_FILE    file with Django's secret key            CPM_FIELD_KEYS_FILE  keys of encrypted columns
CPM_TRUSTED_PROXIES    addresses and networks of proxies in front, with commas; their X-Forwarded-For is believed
CPM_REPORT_KEYS_FILE   keys that sign usage reports, made at first use; the same for every process that answers requests
CPM_WORKER_PLACE       ACCOUNT_NUMBER:REGION that a worker is near to; `cpm worker --place` sets it
CPM_AWS_ENDPOINT_URL   one endpoint for every AWS service (simulator, VPC endpoint); empty means AWS itself
"""

import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from cpm.lib.secrets import scrub_secrets
from cpm.lib.source import Trusted, trusted_proxies


def _secret(name: str, default: str) -> str:
    path = os.environ.get(f"{name}_FILE")
    if path:
        return Path(path).read_text().strip()
    return os.environ.get(name, default)


def _flag(name: str, default: str = "0") -> bool:
    return os.environ.get(name, default).lower() in {"1", "true", "yes", "on"}


def _database(url: str) -> dict[str, object]:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return {
        "ENGINE": "cpm.postgresql",
        "NAME": parts.path.lstrip("/") or "cpm",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.get("host", [unquote(parts.hostname or "")])[0],
        "PORT": str(parts.port or query.get("port", [""])[0]),
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
        # Statements that a connection repeats are planned once; through pgbouncer that needs version 1.21 or newer.
        "OPTIONS": {
            "application_name": "cpm",
            "options": "-c jit=off",
            "server_side_binding": True,
            "prepare_threshold": 2,
        },
    }


BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("CPM_DATA", str(BASE_DIR / "data")))
DEBUG = _flag("CPM_DEBUG")
SECRET_KEY = _secret("CPM_SECRET_KEY", "only-for-commands-that-sign-nothing")
ALLOWED_HOSTS = os.environ.get("CPM_ALLOWED_HOSTS", "*").split(",")
ROOT_URLCONF = "cpm.urls"
WSGI_APPLICATION = "cpm.wsgi.application"
USE_TZ = True
TIME_ZONE = os.environ.get("CPM_TIME_ZONE", "UTC")
LANGUAGE_CODE = "en"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "cpm.User"
APPEND_SLASH = True
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
LOGIN_URL = "/admin/login/"

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "cpm",
]
MIDDLEWARE = [
    "cpm.middleware.ClientAddress",
    "cpm.request_log.RequestLog",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "api.middleware.ApiConventions",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "cpm" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
UNFOLD = {
    "SITE_TITLE": "CPM",
    "SITE_HEADER": "CPM",
    "SITE_SYMBOL": "shield",
    "SHOW_BACK_BUTTON": True,
    "DASHBOARD_CALLBACK": "cpm.admin.dashboard.context",
}
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

DATABASES = {"default": _database(_secret("CPM_DATABASE_URL", "postgresql://127.0.0.1/cpm"))}
REDIS_URL = _secret("CPM_REDIS_URL", "redis://127.0.0.1:6379/0")
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["api.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["api.renderers.JsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["api.parsers.JsonParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "api.negotiation.VersionedNegotiation",
    "DEFAULT_PAGINATION_CLASS": "api.pagination.OptionalPagination",
    "DEFAULT_FILTER_BACKENDS": ["api.filters.ContractFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "api.schema.ContractSchema",
    "EXCEPTION_HANDLER": "api.errors.render",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(seconds=int(os.environ.get("CPM_ACCESS_TOKEN_SECONDS", "3600"))),
    "REFRESH_TOKEN_LIFETIME": timedelta(seconds=int(os.environ.get("CPM_REFRESH_TOKEN_SECONDS", "86400"))),
}
# Failed logins (cpm.services.attempts): so many within the window by one name, or from one address, block for a while.
CPM_LOGIN_ATTEMPTS = int(os.environ.get("CPM_LOGIN_ATTEMPTS", "10"))
CPM_LOGIN_ATTEMPTS_PER_SOURCE = int(os.environ.get("CPM_LOGIN_ATTEMPTS_PER_SOURCE", "100"))
CPM_LOGIN_WINDOW_SECONDS = int(os.environ.get("CPM_LOGIN_WINDOW_SECONDS", "600"))
CPM_LOGIN_BLOCK_SECONDS = int(os.environ.get("CPM_LOGIN_BLOCK_SECONDS", "600"))
# Addresses and networks of proxies whose X-Forwarded-For is believed, with commas; `socket` for a Unix socket.
CPM_TRUSTED_PROXIES: Trusted = trusted_proxies(os.environ.get("CPM_TRUSTED_PROXIES", ""))
SPECTACULAR_SETTINGS = {
    "TITLE": "CPM RESTful API",
    "DESCRIPTION": (
        "Exchange an API key for a token at `POST /api/token/obtain/api_key/` and send it as `Authorization: Bearer …`. "
        "`Accept: application/json; version=1.5.0` asks for a version; the newest is the default. Lists are whole unless "
        "`page` or `page_size` is given. Times are in UTC. Every refusal has the same body, `Errors`."
    ),
    "LICENSE": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "VERSION": "1.5.0",
    "OAS_VERSION": "3.1.0",
    "SERVERS": [{"url": "/", "description": "This server"}],
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": ["api.schema.complete"],
    # The page would ask a public service whether the document is valid.
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# Jobs (cpm.jobs). Leases are renewed at a third of their length.
CPM_JOBS_WAKE = os.environ.get("CPM_JOBS_WAKE", "workers.wake.send")
CPM_LEASE_SECONDS = float(os.environ.get("CPM_LEASE_SECONDS", "15"))
CPM_TICK_SECONDS = float(os.environ.get("CPM_TICK_SECONDS", "1"))
CPM_OFFER_SECONDS = float(os.environ.get("CPM_OFFER_SECONDS", "20"))
CPM_MAX_STEP_FAILURES = int(os.environ.get("CPM_MAX_STEP_FAILURES", "8"))
CPM_RETRY_BASE_SECONDS = float(os.environ.get("CPM_RETRY_BASE_SECONDS", "5"))
# The AWS account and region, as ACCOUNT_NUMBER:REGION, that this worker is near to; `cpm worker --place` sets it.
CPM_WORKER_PLACE = os.environ.get("CPM_WORKER_PLACE", "")
# How often AWS is asked about work in progress, and how long its lists may lag behind its writes.
CPM_POLL_SECONDS = float(os.environ.get("CPM_POLL_SECONDS", "15"))
CPM_AWS_LIST_LAG_SECONDS = float(os.environ.get("CPM_AWS_LIST_LAG_SECONDS", "60"))
# Copies to S3: how much of a volume one worker takes at a time, and how long it works on it before others get a turn.
CPM_S3_PART_GIB = float(os.environ.get("CPM_S3_PART_GIB", "32"))
CPM_S3_SLICE_SECONDS = float(os.environ.get("CPM_S3_SLICE_SECONDS", "60"))
# How long a step must have ended before what it did not count is taken for a stray (cpm.flows.cleanup.stray_rules).
CPM_STRAY_SETTLED_SECONDS = float(os.environ.get("CPM_STRAY_SETTLED_SECONDS", "3600"))

CPM_AWS_ENDPOINT_URL = os.environ.get("CPM_AWS_ENDPOINT_URL", "")
# Multiplies the call rates of cpm.aws.throttle: above 1 for accounts with raised quotas, or for the simulator.
CPM_AWS_RATE_FACTOR = float(os.environ.get("CPM_AWS_RATE_FACTOR", "1"))
CPM_FIELD_KEYS_FILE = os.environ.get("CPM_FIELD_KEYS_FILE", str(DATA_DIR / "secrets" / "field-keys"))
# Made at first use. Every process that answers reports needs the same one.
CPM_REPORT_KEYS_FILE = os.environ.get("CPM_REPORT_KEYS_FILE", str(DATA_DIR / "secrets" / "report-keys"))
CPM_SCRIPTS_DIR = Path(os.environ.get("CPM_SCRIPTS_DIR", str(DATA_DIR / "scripts")))
# Where the policy cpmdata keeps the server's own data; empty means a region that every account has.
CPM_SERVER_REGION = os.environ.get("CPM_SERVER_REGION", "")
CPM_SERVER_BACKUP_DIR = Path(os.environ.get("CPM_SERVER_BACKUP_DIR", str(DATA_DIR / "server-backups")))

# An explore session ends by itself when nobody has used it for so long; and so many of those that are not being used does
# one API process keep open (each costs some 40 MiB and a process of its own).
CPM_EXPLORE_IDLE_MINUTES = int(os.environ.get("CPM_EXPLORE_IDLE_MINUTES", "60"))
CPM_EXPLORE_OPEN_SESSIONS = int(os.environ.get("CPM_EXPLORE_OPEN_SESSIONS", "4"))

# Lets delegates of root with `allow_settings_changes` read and change the settings that are root's.
CPM_SETTINGS_BY_ROOT_DELEGATES = _flag("CPM_SETTINGS_BY_ROOT_DELEGATES")
# Features that are switched off, with commas between them; `cpm.features` names them.
CPM_FEATURES_OFF = frozenset(filter(None, os.environ.get("CPM_FEATURES_OFF", "").split(",")))

LOGGING_CONFIG = None
CPM_LOG_LEVEL = os.environ.get("CPM_LOG_LEVEL", "INFO")
CPM_LOG_PROCESSORS = [scrub_secrets]
# How old a process's view of the settings in the database (proxy, log mode) may become; 0 means that it never looks.
CPM_FOLLOW_SECONDS = float(os.environ.get("CPM_FOLLOW_SECONDS", "5"))
# The certificate (PEM) that clients of this server see, for downloads; `cpm api --certificate` sets it.
CPM_TLS_CERTIFICATE_FILE = os.environ.get("CPM_TLS_CERTIFICATE_FILE", "")
