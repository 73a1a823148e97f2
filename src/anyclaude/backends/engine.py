"""The embedded engine behind the seam: the session's model, loaded when it is needed, answers in a child process."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import msgspec

from anyclaude.backends.counting import COUNT_S
from anyclaude.backends.engine_answer import EngineAnswer
from anyclaude.backends.engine_chat import counting, generation
from anyclaude.backends.engine_process import EngineProcess
from anyclaude.backends.knowledge import Knowledge, estimated, key_of
from anyclaude.backends.seam import Count, Item, Progress, Target, Turn
from anyclaude.errors import ApiError
from anyclaude.wire.frames import Began, CallPiece, Finished, Piece, Prefilled


class EngineBackend:
    """`turn.model` is the folder of a model."""

    def __init__(self, target: Target, engine: EngineProcess, knowledge: Knowledge) -> None:
        self._target = target
        self._engine = engine
        engine.use_options(target.engine_options)
        self._knowledge = knowledge

    async def open(self, turn: Turn) -> AsyncGenerator[Item]:
        silence_s = self._target.silence_s
        capabilities = await self._engine.load(turn.model, silence_s=silence_s)
        frame = generation(turn, self._target, capabilities)
        answer = EngineAnswer(turn.message_id, turn.request.model)
        async with aclosing(self._engine.request(frame, silence_s=silence_s)) as reports:
            async for report in reports:
                match report:
                    case Began():
                        yield answer.begin(report)
                    case Prefilled(n_read=n_read, n_total=n_total):
                        yield Progress(n_read, n_total)
                    case Piece() | CallPiece():
                        for event in answer.piece(report):
                            yield event
                    case Finished():
                        for event in answer.finish(report):
                            yield event
                    case _:
                        pass

    async def count(self, turn: Turn) -> Count:
        """By the renderer that the model will read through; an estimate where the engine cannot tell soon."""
        try:
            with anyio.fail_after(COUNT_S):
                capabilities = await self._engine.load(turn.model)
        except (ApiError, TimeoutError):
            return estimated(turn, self._target, self._knowledge)
        frame = counting(turn, capabilities)
        key = key_of(self._target, turn.model)
        prompt = msgspec.msgpack.encode(frame.chat)
        tokens = await self._knowledge.counts.counted(key, prompt, lambda: self._engine.count(frame))
        return estimated(turn, self._target, self._knowledge) if tokens is None else Count(tokens, is_measured=True)
