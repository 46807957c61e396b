import os

import grpc
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

question = pb.Message(
    role=pb.ROLE_USER,
    content=[pb.ContentPart(text="{{از یک تا پنج بشمار.||Count from one to five.}}")],
)
request = pb.GenerateRequest(model="__MODEL__", messages=[question])

with grpc.insecure_channel(os.environ["VILIX_INFERENCE_TARGET"]) as channel:
    for response in InferenceServiceStub(channel).Generate(request, timeout=60):
        for event in response.events:
            print(event.delta.content, end="", flush=True)
print()
