from tensorrt_llm.executor.utils import RequestError as RequestError
