"""One choice of a request: turns the engine's outputs into events."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference import metrics
from services.inference.generation.answer_parser import AnswerParser, TextKind
from services.inference.generation.logprobs import TokenLogprobs, entries
from services.inference.model.detokenizer import Detokenizer
from services.inference.model.served_model import ServedModel
from services.inference.parsing.segments import CallArguments, CallStart, Reasoning, Segment, Text, joined
from services.inference.request.prompt import Prompt
from services.worker.triton_messages import EngineOutput

REPLACEMENT: Final = "\ufffd"


class Choice:
    """One choice. Each output of the engine passes through `detokenize`, `parse` and `events`, in this order."""

    def __init__(self, index: int, request: pb.GenerateRequest, model: ServedModel, prompt: Prompt) -> None:
        """Create the choice `index` of a checked request."""
        sampling = request.sampling
        skip = sampling.skip_special_tokens if sampling.HasField("skip_special_tokens") else True
        self.index: Final = index
        self._model_id: Final = model.id
        self._stop_token_ids: Final = frozenset(sampling.stop_token_ids)
        self._min_tokens: Final = sampling.min_tokens
        self._detokenizer: Final = Detokenizer(model.tokenizer, skip_special_tokens=skip)
        self._parser: Final = AnswerParser(request, model, prompt)
        self._logprobs: Final = TokenLogprobs(model.tokenizer, self._detokenizer.skipped)
        self._tokenizer: Final = model.tokenizer
        self._prompt_ids: Sequence[int] = prompt.token_ids if request.logprobs.prompt else ()
        """The tokens of the prompt, until their log probabilities were sent."""
        self._reports_every_token: Final = request.logprobs.prompt
        self.reasoning_tokens = 0
        """The number of tokens of the reasoning generated so far."""
        self._tokens_parsed = 0
        self.finish_reason = ""
        """The reason for which the choice ended, with its name in OpenAI's API; empty while it runs."""

    @property
    def stopped(self) -> bool:
        """Whether the choice ended for a reason unknown to the engine: a stop string, or the only call allowed."""
        return self._parser.stop_string is not None or self._parser.ended

    def texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token completes."""
        feed = self._detokenizer.feed
        texts = [feed(token_ids[0])] if len(token_ids) == 1 else [feed(token_id) for token_id in token_ids]
        for text in texts:
            if REPLACEMENT in text:
                metrics.DAMAGED_CHARACTERS.labels(self._model_id).inc(text.count(REPLACEMENT))
        return texts

    def take_plain(self, text: str, tokens: int) -> TextKind:
        """Parse the text of `tokens` tokens if it is plain. Otherwise return NONE, and change nothing."""
        kind = self._parser.take_plain(text)
        if kind is not TextKind.NONE:
            self._tokens_parsed += tokens
            if kind is not TextKind.ANSWER:
                self.reasoning_tokens += tokens
        return kind

    def detokenize(self, output: EngineOutput) -> list[str]:
        """Return the text that each token completes, without the token that ends the generation."""
        token_ids = output.token_ids[:-1] if output.finish_reason == "stop" else output.token_ids
        return self.texts(token_ids)

    def parse(self, texts: Sequence[str], *, at_end: bool) -> list[Segment]:
        """Return the segments that are certain after `texts`; with `at_end`, all remaining ones."""
        segments: list[Segment] = []
        for text in texts:
            if self.stopped:
                # Ignore tokens that were generated after the stop was decided.
                break
            self.reasoning_tokens += self._parser.in_reasoning
            # Stop strings do not count before `min_tokens` tokens.
            segments += self._parser.feed(text, may_stop=self._tokens_parsed >= self._min_tokens)
            self._tokens_parsed += 1
        if at_end or self.stopped:
            segments += self._parser.close()
        return joined(segments)

    def events(self, output: EngineOutput, texts: Sequence[str], segments: Sequence[Segment]) -> list[pb.Event]:
        """Return the events of `segments`, which also count the output's tokens, and the last event at the end."""
        if not self._reports_every_token:
            self._logprobs.note(output, texts)
        deltas = [self._delta(segment) for segment in segments]
        if self._reports_every_token:
            deltas = deltas or [pb.Delta(index=self.index)]
            self._add_every_token(deltas[0], output)
        elif output.logprobs is not None:
            self._logprobs.forget(self._parser.decided)
        count = len(output.token_ids) + output.left_out
        if not deltas and count:
            deltas = [pb.Delta(index=self.index)]
        if deltas:
            deltas[0].token_count = count
        events = [pb.Event(delta=delta) for delta in deltas]
        if output.finish_reason is not None or self.stopped:
            events.append(pb.Event(finish=self._finish(output)))
        return events

    def _add_every_token(self, delta: pb.Delta, output: EngineOutput) -> None:
        """Add the log probabilities of all tokens of an output, and once those of the prompt."""
        prompt = output.prompt
        if prompt is not None and self._prompt_ids:
            delta.prompt_logprobs.extend(
                entries(self._tokenizer, self._prompt_ids, prompt.logprobs, prompt.top_token_ids, prompt.top_logprobs)
            )
            self._prompt_ids = ()
        if output.logprobs is not None:
            delta.logprobs.extend(
                entries(self._tokenizer, output.token_ids, output.logprobs, output.top_token_ids, output.top_logprobs)
            )

    def _delta(self, segment: Segment) -> pb.Delta:
        match segment:
            case Text(text):
                delta = pb.Delta(index=self.index, content=text)
                if logprobs := self._logprobs.take(segment.start, segment.start + len(text)):
                    delta.logprobs.extend(logprobs)
                return delta
            case Reasoning(text):
                return pb.Delta(index=self.index, reasoning_content=text)
            case CallStart(index, name):
                call = pb.ToolCallFragment(index=index, id=f"call_{secrets.token_hex(12)}", name=name)
            case CallArguments(index, text):
                call = pb.ToolCallFragment(index=index, arguments_json=text)
        return pb.Delta(index=self.index, tool_call=call)

    def _finish(self, output: EngineOutput) -> pb.Finish:
        """Return the event that ends the choice, with its finish reason.

        `length` if the engine reached a token limit first, even if calls are complete: the model was not done. Else
        `tool_calls` if there are calls and all of them are complete, even if a stop follows them: the client may run
        every call that it has received. Else `stop`. An invalid call is text and has no effect, unless a part of it was
        sent because it is long (see tool_calls.py): then the reason is `stop`, because the client must not run it.
        """
        stop_string, ended = self._parser.stop_string, self._parser.ended
        by_engine = stop_string is None and not ended
        reason = pb.FINISH_REASON_TOOL_CALLS if self._parser.called else pb.FINISH_REASON_STOP
        if by_engine and output.finish_reason == "length":
            reason = pb.FINISH_REASON_LENGTH
        self.finish_reason = pb.FinishReason.Name(reason).removeprefix("FINISH_REASON_").lower()
        finish = pb.Finish(index=self.index, reason=reason, stop_string=stop_string or "")
        stopped = by_engine and output.finish_reason == "stop" and output.token_ids
        if stopped and output.token_ids[-1] in self._stop_token_ids:
            finish.stop_token_id = output.token_ids[-1]
        return finish
