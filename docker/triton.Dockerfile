# Triton with TensorRT-LLM 1.2.1, for GPUs:
# docker build -f docker/triton.Dockerfile --build-arg TRITON_DIGEST=sha256:… .
# The image does not contain our backend: `vilix models render` writes it beside each model, so that a worker and its
# backend always have the same version.
# 26.07 is the last image of NVIDIA with Triton and TensorRT-LLM, and gets no more fixes. Models that need 1.3 need the
# image of triton-next.Dockerfile.
ARG TRITON=nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3
ARG TRITON_DIGEST

FROM ${TRITON}@${TRITON_DIGEST}
ARG PIP_INDEX_URL
COPY requirements/triton.txt /tmp/triton.txt
# tensorrt_llm.llmapi cannot be imported with the openai package of 26.07. MPI needs the name of its user.
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/triton.txt \
    && rm /tmp/triton.txt \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp vilix
COPY docker/triton-start.sh /usr/local/bin/vilix-start
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TRTLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8002
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "/usr/local/bin/vilix-start"]
