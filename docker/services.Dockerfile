# The gateway and the workers:
# docker build -f docker/services.Dockerfile --target gateway --build-arg PYTHON_DIGEST=sha256:… .
# PYTHON_DIGEST is the digest of a base image that you have checked. PIP_INDEX_URL and UV_DEFAULT_INDEX name a mirror of
# the package index.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm
ARG PYTHON_DIGEST

FROM ${PYTHON}@${PYTHON_DIGEST} AS build
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
WORKDIR /build
COPY requirements/build.txt requirements/build.txt
RUN python -m venv /tools && /tools/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY proto proto
COPY services services
RUN /tools/bin/hatchling build -t wheel -d /wheels
WORKDIR /build/proto
RUN /tools/bin/hatchling build -t wheel -d /wheels
WORKDIR /build

FROM build AS gateway-build
COPY requirements/gateway.txt requirements/gateway.txt
RUN python -m venv --without-pip /opt/vilix/venv \
    && /tools/bin/uv pip sync --no-cache --require-hashes --compile-bytecode \
        --python /opt/vilix/venv/bin/python requirements/gateway.txt \
    && /tools/bin/uv pip install --no-cache --no-deps --compile-bytecode \
        --python /opt/vilix/venv/bin/python /wheels/*.whl

FROM build AS worker-build
COPY requirements/worker.txt requirements/worker.txt
RUN python -m venv --without-pip /opt/vilix/venv \
    && /tools/bin/uv pip sync --no-cache --require-hashes --compile-bytecode \
        --python /opt/vilix/venv/bin/python requirements/worker.txt \
    && /tools/bin/uv pip install --no-cache --no-deps --compile-bytecode \
        --python /opt/vilix/venv/bin/python /wheels/*.whl

FROM ${PYTHON}@${PYTHON_DIGEST} AS base
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp vilix
ENV PATH=/opt/vilix/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001

FROM base AS gateway
COPY --from=gateway-build /opt/vilix /opt/vilix
EXPOSE 8000 8081 9090
CMD ["python", "-m", "services.gateway"]

FROM base AS worker
COPY --from=worker-build /opt/vilix /opt/vilix
EXPOSE 9001 9002 9003 9090
CMD ["python", "-m", "services.inference"]
