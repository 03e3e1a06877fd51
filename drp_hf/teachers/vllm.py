"""Asks a language model that vLLM runs in this process."""

from __future__ import annotations

from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING

from drp_hf.engines import make_engine
from drp_hf.errors import DRPError
from drp_hf.teacher import Reply, Request, Unanswerable
from drp_hf.teachers.asking import Asker, Conversations, Finished, Replies, Turn

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

    from drp_hf.engines.vllm import VLLMEngine


class VLLMAsker(Asker):
    """Asks a model in this process; whatever is ready is written together, and a reply's place is filled at once.

    Args:
        model: a model's name, as in [`~drp_hf.models.adapter_chain`].
        batch_size: requests under way at the same time.
        context_length: tokens of request and reply together; as in [`~drp_hf.engines.make_engine`].
    """

    def __init__(self, model: str, batch_size: int = 256, context_length: int | None = None) -> None:
        self.model = model
        self.batch_size = batch_size
        self.context_length = context_length
        self.numbers = count()

    @cached_property
    def engine(self) -> VLLMEngine:
        """The engine, loaded when it is first needed: where every reply is on disk, it never is."""
        engine = make_engine("vllm", self.model, batch_size=self.batch_size, context_length=self.context_length)
        if not engine.tokenizer.chat_template:
            raise DRPError(f"The tokenizer of {self.model} has no chat template: give a model made for chat.")
        return engine

    def run(self, conversations: Conversations, replies: Replies, finished: Finished) -> None:
        from drp_hf.engines.vllm import ended_by_interrupt

        waiting = iter(conversations)
        turns: dict[str, tuple[str, Turn]] = {}
        with ended_by_interrupt():
            while True:
                while len(turns) < self.batch_size and (new := next(waiting, None)):
                    key, start = new
                    self._go_on(key, Turn(start(), replies), turns, finished)
                if not turns:
                    return
                answered = [
                    (*turns.pop(output.request_id), self._reply(output)) for output in self.engine.engine.step()
                ]
                replies.put(*((turn.request, reply) for _, turn, reply in answered))
                for key, turn, reply in answered:
                    turn.answer(reply)
                    self._go_on(key, turn, turns, finished)

    def _go_on(self, key: str, turn: Turn, turns: dict[str, tuple[str, Turn]], finished: Finished) -> None:
        """Hands the conversation's next request to the engine, or its row to the caller."""
        while turn.request is not None:
            prompt = self.engine.tokenizer.apply_chat_template(
                list(turn.request.messages), add_generation_prompt=True, return_dict=True
            )["input_ids"]
            if len(prompt) < self.engine.context_length:
                number = str(next(self.numbers))
                self.engine.add_request(number, prompt, self._sampling(turn.request))
                turns[number] = (key, turn)
                return
            turn.answer(Unanswerable(f"the request has {len(prompt)} tokens, more than the teacher's context"))
        finished(key, turn.row, turn.final)

    def _sampling(self, request: Request) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        return SamplingParams(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            stop_token_ids=sorted(self.engine.stop_ids),
            structured_outputs=StructuredOutputsParams(json=dict(request.schema)) if request.schema else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=False,
        )

    def _reply(self, output: RequestOutput) -> Reply:
        answer = output.outputs[0]
        ids = list(answer.token_ids)
        stopped = ids and ids[-1] in self.engine.stop_ids
        # Special tokens stay in the text: in some vocabularies the think tags are among them.
        text = self.engine.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=False)
        return Reply(text, answer.finish_reason or "stop", len(output.prompt_token_ids), len(ids))
