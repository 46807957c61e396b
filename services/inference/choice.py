"""One answer: what the engine sends of it, turned into events."""

from __future__ import annotations

from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.detokenizer import Detokenizer
from services.inference.served_model import ServedModel
from services.inference.stop_strings import StopStrings
from services.triton_client import EngineOutput

_REASONS: Final = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}


class Choice:
    """The tokens of one choice on their way to text: detokenize, then look for stop strings."""

    def __init__(self, index: int, request: pb.GenerateRequest, model: ServedModel) -> None:
        """Of a checked request."""
        skip = request.sampling.skip_special_tokens if request.sampling.HasField("skip_special_tokens") else True
        self._index: Final = index
        self._tokenizer: Final = model.tokenizer
        self._stop_token_ids: Final = frozenset(request.sampling.stop_token_ids)
        self._detokenizer: Final = Detokenizer(model.tokenizer, skip_special_tokens=skip)
        self._stop_strings: Final = StopStrings(list(request.sampling.stop))
        self._logprobs: list[pb.TokenLogprob] = []
        self.token_count = 0
        """Tokens generated so far."""
        self.finished = False

    def feed(self, output: EngineOutput) -> list[pb.Event]:
        """The events that follow from what the engine sent. After the one that finishes, nothing follows."""
        ended_by_token = output.finish_reason == "stop"
        shown = len(output.token_ids) - ended_by_token
        self._note_logprobs(output, shown)
        self.token_count += len(output.token_ids)
        text = self._stop_strings.feed(self._detokenizer.feed(output.token_ids[:shown]))
        at_end = output.finish_reason is not None or self._stop_strings.found is not None
        if at_end and self._stop_strings.found is None:
            text += self._stop_strings.feed(self._detokenizer.close())
            text += self._stop_strings.close()
        events = self._delta(text, len(output.token_ids), at_end=at_end)
        if at_end:
            self.finished = True
            events.append(self._finish(output))
        return events

    def _delta(self, text: str, token_count: int, *, at_end: bool) -> list[pb.Event]:
        if not text and not token_count:
            return []
        delta = pb.Delta(index=self._index, token_count=token_count)
        if text or (at_end and self._logprobs):
            delta.content = text
            # Log probabilities travel with the text that their tokens complete.
            delta.logprobs.extend(self._logprobs)
            self._logprobs.clear()
        return [pb.Event(delta=delta)]

    def _finish(self, output: EngineOutput) -> pb.Event:
        if self._stop_strings.found is not None:
            return pb.Event(
                finish=pb.Finish(index=self._index, reason=pb.FINISH_REASON_STOP, stop_string=self._stop_strings.found)
            )
        finish = pb.Finish(index=self._index, reason=_REASONS[output.finish_reason or "stop"])
        if output.finish_reason == "stop" and output.token_ids[-1:] and output.token_ids[-1] in self._stop_token_ids:
            finish.stop_token_id = output.token_ids[-1]
        return pb.Event(finish=finish)

    def _note_logprobs(self, output: EngineOutput, shown: int) -> None:
        if output.logprobs is None:
            return
        for place in range(shown):
            token_id = output.token_ids[place]
            token_bytes = self._tokenizer.bytes_of(token_id)
            entry = pb.TokenLogprob(
                token_id=token_id,
                token=token_bytes.decode(errors="replace"),
                token_bytes=token_bytes,
                logprob=output.logprobs[place],
            )
            if output.top_token_ids is not None and output.top_logprobs is not None:
                for top_id, logprob in zip(output.top_token_ids[place], output.top_logprobs[place], strict=True):
                    top_bytes = self._tokenizer.bytes_of(top_id)
                    entry.top.add(
                        token_id=top_id,
                        token=top_bytes.decode(errors="replace"),
                        token_bytes=top_bytes,
                        logprob=logprob,
                    )
            self._logprobs.append(entry)
