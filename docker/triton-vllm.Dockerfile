# Triton with vLLM, for GPUs:
# docker build -f docker/triton-vllm.Dockerfile --build-arg TRITON_VLLM_DIGEST=sha256:… .
# A RECIPE THAT NOBODY HAS BUILT YET. NVIDIA publishes Triton with vLLM every month. The notes of release 26.11 name the
# images that are missing, and this is none of them; but the compatibility matrix that we could read ends with 26.08
# (vLLM 0.27.1). The build fails if vLLM is older than the catalog requires. TRITON_VLLM names another image.
ARG TRITON_VLLM=nvcr.io/nvidia/tritonserver:26.11-vllm-python-py3
ARG TRITON_VLLM_DIGEST

FROM ${TRITON_VLLM}@${TRITON_VLLM_DIGEST}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG VLLM_AT_LEAST=0.30.0
RUN VLLM=$(python3 -c 'import importlib.metadata; print(importlib.metadata.version("vllm"))') \
    && echo "vLLM ${VLLM}, at least ${VLLM_AT_LEAST}" \
    && printf '%s\n' "${VLLM_AT_LEAST}" "${VLLM%%+*}" | sort --version-sort --check \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp vilix
COPY docker/triton-start.sh /usr/local/bin/vilix-start
# Weights are in volumes, and pods with GPUs do not connect to the hub.
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8002
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "/usr/local/bin/vilix-start"]
