# Triton with TensorRT-LLM, on GPUs: docker build -f docker/triton.Dockerfile --build-arg TRITON_DIGEST=sha256:… .
# Our backend is not in it: `vilix models render` writes it beside each model, so that a worker and its backend are always of one version.
# 26.04 to 26.07 carry TensorRT-LLM 1.2.1. An image with a release candidate of 1.3 (qwen3-vl, minimax) is your own choice: pass TRITON too.
ARG TRITON=nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3
ARG TRITON_DIGEST

FROM ${TRITON}@${TRITON_DIGEST}
ARG PIP_INDEX_URL
COPY requirements/triton.txt /tmp/triton.txt
# tensorrt_llm.llmapi does not import with the openai of 26.07. MPI wants to know its user's name.
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/triton.txt \
    && rm /tmp/triton.txt \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp vilix
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8002
# Plain tritonserver can fail to start the processes of several GPUs (MPI_ERR_SPAWN).
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "trtllm-llmapi-launch", "tritonserver"]
