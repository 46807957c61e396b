"""A model as this worker serves it: its catalog entry, tokenizer, template, and what its engine said of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.failure import Failure, Reason
from services.inference.catalog import ModelSpec
from services.inference.chat_template import ChatTemplate
from services.inference.tokenizer import ModelTokenizer

_WORKERS_OWN: Final = frozenset(
    {"messages", "prompt", "prompt_token_ids", "n", "continue_final_message"}
    | {"sampling.stop", "sampling.skip_special_tokens"}
)
_BY_ENGINE: Final = {
    "logprobs": "logprobs",
    "cache_salt": "tenant",
    "priority": "priority",
}
_SAMPLING: Final = frozenset(pb.SamplingParams.DESCRIPTOR.fields_by_name)


@dataclass(frozen=True)
class EngineDescription:
    """What Triton's `describe` says of a model."""

    engine: str
    version: str
    supported_parameters: frozenset[str]
    """Keys of the Triton contract's `params`."""
    context_length: int
    slots: int


@dataclass
class ServedModel:
    """One model. `description` is None while its engine has not answered."""

    spec: ModelSpec
    tokenizer: ModelTokenizer
    template: ChatTemplate
    description: EngineDescription | None = field(default=None)
    described_at: float = field(default=0.0)
    """When the engine last answered, on the monotonic clock."""

    @classmethod
    def load(cls, spec: ModelSpec, directory: Path) -> ServedModel:
        """Read the model directory. Raises OSError or ValueError that says what is wrong with it."""
        return cls(spec, ModelTokenizer(directory), ChatTemplate(directory))

    @property
    def id(self) -> str:
        """The public id."""
        return self.spec.id

    def engine(self) -> EngineDescription:
        """What its engine is. Raises MODEL_UNAVAILABLE while it does not answer."""
        if self.description is None:
            raise Failure(
                Reason.MODEL_UNAVAILABLE,
                f"the model {self.id} is not available at the moment; try again in a few seconds",
                retry_after=2.0,
            )
        return self.description

    def supports(self, parameter: str) -> bool:
        """Whether the engine honours a key of the Triton contract's `params`."""
        return parameter in self.engine().supported_parameters

    def to_proto(self) -> pb.Model:
        """The model as the API describes it. Raises MODEL_UNAVAILABLE while its engine does not answer."""
        spec, engine = self.spec, self.engine()
        model = pb.Model(
            id=spec.id,
            owned_by=spec.owned_by,
            context_length=min(spec.context_length, engine.context_length),
            capabilities=pb.Capabilities(
                chat=True,
                reasoning=spec.parsers.reasoning is not None,
                reasoning_optional=spec.capabilities.reasoning_optional,
                tools=spec.parsers.tool_calls is not None,
                # The catalog's vision is not told: requests with images are refused so far.
                structured_output=self._follows_forms(),
            ),
            supported_parameters=sorted(self._supported_fields()),
            sampling_defaults=pb.SamplingParams(**spec.sampling.model_dump(exclude_none=True)),
            engine=pb.Engine(name=engine.engine, version=engine.version, slots=engine.slots),
            checkpoint=spec.checkpoint,
            descriptions={str(language): text for language, text in spec.descriptions.items()},
        )
        model.created.FromJsonString(f"{spec.created.isoformat()}T00:00:00Z")
        return model

    def _supported_fields(self) -> set[str]:
        fields = _WORKERS_OWN | set(_field_paths(self.engine().supported_parameters))
        if self.spec.parsers.reasoning is not None:
            fields |= {"reasoning.exclude"}
            if self.spec.capabilities.reasoning_optional:
                fields |= {"reasoning.enabled", "reasoning.effort"}
        if self.spec.parsers.tool_calls is not None:
            fields |= {"tools", "tool_choice", "parallel_tool_calls"}
        if self._follows_forms():
            fields |= {"response_format"}
        return set(fields)

    def _follows_forms(self) -> bool:
        """A model that always thinks would have to write its thought in the form."""
        always_thinks = self.spec.parsers.reasoning is not None and not self.spec.capabilities.reasoning_optional
        return self.supports("guide") and not always_thinks


def _field_paths(parameters: frozenset[str]) -> list[str]:
    """The fields of GenerateRequest that these keys of `params` carry."""
    return [
        f"sampling.{name}" if name in _SAMPLING else _BY_ENGINE[name]
        for name in parameters
        if name in _SAMPLING or name in _BY_ENGINE
    ]


def describe(answer: dict[str, Any]) -> EngineDescription:
    """Read the answer of TritonClient.describe."""
    return EngineDescription(
        engine=answer["engine"],
        version=answer["version"],
        supported_parameters=frozenset(answer["supported_parameters"]),
        context_length=answer["context_length"],
        slots=answer["slots"],
    )
