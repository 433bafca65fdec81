# API, workers and beat in one image; PostgreSQL and Redis come from elsewhere (docker-compose.yml, Helm).
FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/base.txt requirements/local.txt requirements/
RUN python -m venv /opt/cpm && /opt/cpm/bin/pip install --require-hashes -r requirements/base.txt
# The build tool is pinned too, and stays out of the image.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements/local.txt > build.txt \
    && python -m venv --system-site-packages /opt/build \
    && /opt/build/bin/pip install --require-hashes -r build.txt
COPY pyproject.toml README.md LICENSE ./
COPY cpm cpm
COPY api api
COPY workers workers
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/cpm/bin/pip install --no-deps /wheels/*.whl \
    && /opt/cpm/bin/python -m compileall -q /opt/cpm

FROM python:3.12-slim
ENV PATH=/opt/cpm/bin:$PATH PYTHONUNBUFFERED=1 DJANGO_SETTINGS_MODULE=cpm.settings CPM_DATA=/var/lib/cpm
RUN groupadd --gid 10001 cpm \
    && useradd --uid 10001 --gid cpm --home-dir /var/lib/cpm --no-create-home --shell /usr/sbin/nologin cpm \
    && install -d -o cpm -g cpm -m 0700 /var/lib/cpm
COPY --from=build /opt/cpm /opt/cpm
USER cpm
VOLUME /var/lib/cpm
EXPOSE 8080
CMD ["cpm", "api", "--host", "0.0.0.0", "--port", "8080"]
