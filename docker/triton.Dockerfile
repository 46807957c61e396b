# Triton with TensorRT-LLM, on GPUs: docker build -f docker/triton.Dockerfile --build-arg TRITON_DIGEST=sha256:… .
# The image does not contain our backend: `vilix models render` writes it beside each model, so that a worker and its
# backend always have the same version.
# The images 26.04 to 26.07 contain TensorRT-LLM 1.2.1. To use one with a release candidate of 1.3 (for qwen3-vl and
# minimax), pass TRITON too.
ARG TRITON=nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3
ARG TRITON_DIGEST

FROM ${TRITON}@${TRITON_DIGEST}
ARG PIP_INDEX_URL
COPY requirements/triton.txt /tmp/triton.txt
# tensorrt_llm.llmapi cannot be imported with the openai package of 26.07. MPI needs the name of its user.
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/triton.txt \
    && rm /tmp/triton.txt \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp vilix
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8002
# With several GPUs, tritonserver alone can fail to start their processes (MPI_ERR_SPAWN).
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "trtllm-llmapi-launch", "tritonserver"]
