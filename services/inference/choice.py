"""One answer: the tokens that the engine sends of it, on their way to events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.detokenizer import Detokenizer
from services.inference.logprobs import TokenLogprobs
from services.inference.served_model import ServedModel
from services.inference.stop_strings import StopStrings
from services.triton_client import EngineOutput

_REASONS: Final = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}


class Choice:
    """Takes each output of the engine through `detokenize`, `parse` and `events`, in this order."""

    def __init__(self, index: int, request: pb.GenerateRequest, model: ServedModel) -> None:
        """Of a checked request."""
        sampling = request.sampling
        skip = sampling.skip_special_tokens if sampling.HasField("skip_special_tokens") else True
        self._index: Final = index
        self._stop_token_ids: Final = frozenset(sampling.stop_token_ids)
        self._min_tokens: Final = sampling.min_tokens
        self._detokenizer: Final = Detokenizer(model.tokenizer, skip_special_tokens=skip)
        self._stop_strings: Final = StopStrings(list(sampling.stop))
        self._logprobs: Final = TokenLogprobs(model.tokenizer)
        self._tokens_parsed = 0
        self._shown = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended it, of which the engine knows nothing."""
        return self._stop_strings.found is not None

    def detokenize(self, output: EngineOutput) -> list[str]:
        """The text that each token completes. A token that ends the answer has none and is left out."""
        shown = output.token_ids[:-1] if output.finish_reason == "stop" else output.token_ids
        return [self._detokenizer.feed(token_id) for token_id in shown]

    def parse(self, texts: Sequence[str], *, at_end: bool) -> str:
        """The part of the answer that is certain now."""
        content = ""
        for text in texts:
            # What min_tokens asked for comes before any stop.
            content += text if self._tokens_parsed < self._min_tokens else self._stop_strings.feed(text)
            self._tokens_parsed += 1
        return content + self._stop_strings.close() if at_end else content

    def events(self, output: EngineOutput, texts: Sequence[str], content: str) -> list[pb.Event]:
        """The events that show `content` and count the output's tokens; with the last one, the end."""
        self._logprobs.note(output, texts)
        self._shown += len(content)
        at_end = output.finish_reason is not None
        logprobs = self._logprobs.released(self._shown)
        if at_end and not self.stopped:
            logprobs += self._logprobs.rest()
        events = []
        if content or output.token_ids or logprobs:
            delta = pb.Delta(index=self._index, token_count=len(output.token_ids), logprobs=logprobs)
            if content or logprobs:
                delta.content = content
            events.append(pb.Event(delta=delta))
        if at_end or self.stopped:
            events.append(pb.Event(finish=self._finish(output)))
        return events

    def _finish(self, output: EngineOutput) -> pb.Finish:
        if self._stop_strings.found is not None:
            return pb.Finish(index=self._index, reason=pb.FINISH_REASON_STOP, stop_string=self._stop_strings.found)
        reason = output.finish_reason or "stop"
        finish = pb.Finish(index=self._index, reason=_REASONS[reason])
        if reason == "stop" and output.token_ids and output.token_ids[-1] in self._stop_token_ids:
            finish.stop_token_id = output.token_ids[-1]
        return finish
