"""URLs of the whole server: the API, its documents, the admin, health and metrics."""

from django.contrib import admin
from django.urls import include, path

from cpm.admin import login
from cpm.health import healthz
from cpm.metrics import metrics

urlpatterns = [
    path("healthz", healthz),
    path("metrics", metrics),
    path("admin/login/", login.login),
    path("admin/password_change/", login.change_password),
    path("admin/", admin.site.urls),
    path("api/", include("api.urls")),
]
