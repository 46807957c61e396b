# Triton with a release candidate of TensorRT-LLM 1.3 or later, on GPUs.
# A RECIPE THAT NOBODY HAS BUILT YET: NVIDIA publishes no image with both. It puts the current Triton into the image of
# TensorRT-LLM. Both should have Ubuntu 24.04 and Python 3.12; the build fails if a library of Triton is missing there.
# docker build -f docker/triton-next.Dockerfile \
#   --build-arg TRITON_DIGEST=sha256:… --build-arg TENSORRT_LLM_DIGEST=sha256:… .
# Choose a candidate from 1.3.0rc26 on: earlier ones ignore seeds or penalties, or end with one logit_bias.
ARG TRITON=nvcr.io/nvidia/tritonserver:26.11-py3
ARG TRITON_DIGEST
ARG TENSORRT_LLM=nvcr.io/nvidia/tensorrt-llm/release:1.3.0rc29
ARG TENSORRT_LLM_DIGEST

FROM ${TRITON}@${TRITON_DIGEST} AS triton
# Triton's own library of GPU metrics, in a place that the next stage can name.
RUN mkdir /dcgm && cp -P /usr/lib/x86_64-linux-gnu/libdcgm.so* /dcgm/

FROM ${TENSORRT_LLM}@${TENSORRT_LLM_DIGEST}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        libarchive13t64 libb64-0d libcurl4t64 libgoogle-perftools4t64 libjemalloc2 libnuma1 libre2-10 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp vilix
COPY --from=triton /opt/tritonserver/bin /opt/tritonserver/bin
COPY --from=triton /opt/tritonserver/lib /opt/tritonserver/lib
COPY --from=triton /opt/tritonserver/backends/python /opt/tritonserver/backends/python
COPY --from=triton /dcgm /usr/lib/x86_64-linux-gnu/
# The driver's own library comes from the host.
RUN missing=$(ldd /opt/tritonserver/bin/tritonserver /opt/tritonserver/lib/*.so \
        /opt/tritonserver/backends/python/*.so /opt/tritonserver/backends/python/triton_python_backend_stub \
        | grep 'not found' | grep -v libcuda.so || true) \
    && if [ -n "$missing" ]; then echo "$missing" && exit 1; fi
COPY docker/triton-start.sh /usr/local/bin/vilix-start
ENV PATH=/opt/tritonserver/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TRTLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8002
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "/usr/local/bin/vilix-start"]
