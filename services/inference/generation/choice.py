"""One answer: the tokens that the engine sends of it, on their way to events."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference import metrics
from services.inference.generation.logprobs import TokenLogprobs
from services.inference.model.detokenizer import Detokenizer
from services.inference.model.served_model import ServedModel
from services.inference.parsing.answer_parser import AnswerParser
from services.inference.parsing.segments import Answer, CallArguments, CallStart, Piece, Thought, joined
from services.inference.request.prompt import Prompt
from services.worker.triton_client import EngineOutput

REPLACEMENT: Final = "\ufffd"


class Choice:
    """Takes each output of the engine through `detokenize`, `parse` and `events`, in this order."""

    def __init__(self, index: int, request: pb.GenerateRequest, model: ServedModel, prompt: Prompt) -> None:
        """Of a checked request."""
        sampling = request.sampling
        skip = sampling.skip_special_tokens if sampling.HasField("skip_special_tokens") else True
        self._index: Final = index
        self._model_id: Final = model.id
        self._stop_token_ids: Final = frozenset(sampling.stop_token_ids)
        self._min_tokens: Final = sampling.min_tokens
        self._detokenizer: Final = Detokenizer(model.tokenizer, skip_special_tokens=skip)
        self._parser: Final = AnswerParser(request, model, prompt)
        self._logprobs: Final = TokenLogprobs(model.tokenizer, self._detokenizer.skipped)
        self.reasoning_tokens = 0
        """How many tokens of the thought were generated."""
        self._tokens_parsed = 0

    @property
    def stopped(self) -> bool:
        """Whether the choice ended for a reason unknown to the engine: a stop string, or the only call allowed."""
        return self._parser.stop_string is not None or self._parser.ended

    def detokenize(self, output: EngineOutput) -> list[str]:
        """The text that each token completes. A token that ends the answer has none and is left out."""
        shown = output.token_ids[:-1] if output.finish_reason == "stop" else output.token_ids
        texts = [self._detokenizer.feed(token_id) for token_id in shown]
        damaged = sum(text.count(REPLACEMENT) for text in texts)
        if damaged:
            metrics.DAMAGED_CHARACTERS.labels(self._model_id).inc(damaged)
        return texts

    def parse(self, texts: Sequence[str], *, at_end: bool) -> list[Piece]:
        """The part of the answer that is certain now."""
        pieces: list[Piece] = []
        for text in texts:
            if self.stopped:
                # Whether the engine wrote on before it heard of it must change nothing.
                break
            self.reasoning_tokens += self._parser.thinking
            # What min_tokens asked for comes before any stop.
            pieces += self._parser.feed(text, may_stop=self._tokens_parsed >= self._min_tokens)
            self._tokens_parsed += 1
        if at_end or self.stopped:
            pieces += self._parser.close()
        return joined(pieces)

    def events(self, output: EngineOutput, texts: Sequence[str], pieces: Sequence[Piece]) -> list[pb.Event]:
        """The events that show `pieces` and count the output's tokens; with the last one, the end."""
        self._logprobs.note(output, texts)
        deltas = [self._delta(piece) for piece in pieces]
        if output.logprobs is not None:
            self._logprobs.forget(self._parser.decided)
        count = len(output.token_ids) + output.left_out
        if not deltas and count:
            deltas = [pb.Delta(index=self._index)]
        if deltas:
            deltas[0].token_count = count
        events = [pb.Event(delta=delta) for delta in deltas]
        if output.finish_reason is not None or self.stopped:
            events.append(pb.Event(finish=self._finish(output)))
        return events

    def _delta(self, piece: Piece) -> pb.Delta:
        match piece:
            case Answer(text):
                delta = pb.Delta(index=self._index, content=text)
                if logprobs := self._logprobs.shown(piece.start, piece.start + len(text)):
                    delta.logprobs.extend(logprobs)
                return delta
            case Thought(text):
                return pb.Delta(index=self._index, reasoning_content=text)
            case CallStart(index, name):
                call = pb.ToolCallFragment(index=index, id=f"call_{secrets.token_hex(12)}", name=name)
            case CallArguments(index, text):
                call = pb.ToolCallFragment(index=index, arguments_json=text)
        return pb.Delta(index=self._index, tool_call=call)

    def _finish(self, output: EngineOutput) -> pb.Finish:
        """The end.

        `length` when the engine ran out of tokens first, though calls may be complete: the model was not at its end.
        Else `tool_calls` when calls were made, all of them complete: a client that sees it may run every call it has;
        it says so also where a stop came behind them. Else `stop`. What was no proper call is text and changes nothing,
        except a long one of which a part was shown (see tool_calls.py): then it is `stop`, as not every call that the
        client has can be run.
        """
        found, ended = self._parser.stop_string, self._parser.ended
        by_engine = found is None and not ended
        reason = pb.FINISH_REASON_TOOL_CALLS if self._parser.called else pb.FINISH_REASON_STOP
        if by_engine and output.finish_reason == "length":
            reason = pb.FINISH_REASON_LENGTH
        finish = pb.Finish(index=self._index, reason=reason, stop_string=found or "")
        stopped = by_engine and output.finish_reason == "stop" and output.token_ids
        if stopped and output.token_ids[-1] in self._stop_token_ids:
            finish.stop_token_id = output.token_ids[-1]
        return finish
