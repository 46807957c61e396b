# Triton, the workers and small models for the demo without GPUs, on x86-64 only:
# docker build -f docker/cpu.Dockerfile --build-arg PYTHON_DIGEST=sha256:… .
# PIP_INDEX_URL and UV_DEFAULT_INDEX name a mirror of the package index.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm
ARG PYTHON_DIGEST

FROM ${PYTHON}@${PYTHON_DIGEST} AS build
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
WORKDIR /build
COPY requirements/build.txt requirements/build.txt
RUN python -m venv /tools && /tools/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY requirements/cpu.txt requirements/cpu.txt
RUN python -m venv --without-pip /opt/vilix/venv \
    && /tools/bin/uv pip sync --no-cache --require-hashes --compile-bytecode \
        --python /opt/vilix/venv/bin/python requirements/cpu.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY proto proto
COPY services services
RUN /tools/bin/hatchling build -t wheel -d /wheels
WORKDIR /build/proto
RUN /tools/bin/hatchling build -t wheel -d /wheels \
    && /tools/bin/uv pip install --no-cache --no-deps --compile-bytecode \
        --python /opt/vilix/venv/bin/python /wheels/*.whl
# The server's start script and the small model are prepared at build time.
RUN /opt/vilix/venv/bin/python -m services.stack.image /opt/vilix

FROM ${PYTHON}@${PYTHON_DIGEST}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp vilix
COPY --from=build /opt/vilix /opt/vilix
ENV PATH=/opt/vilix/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8002 9001 9002 9003 9090
ENTRYPOINT ["/opt/vilix/triton/start"]
