"""The thread of prompts: tokenizers, templates and committed conversations. Requests come in as frames and go on to the
thread of models with their tokens known; what a template refuses ends here."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from anyclaude.engine.conversation.conversations import Conversations, Rendered
from anyclaude.engine.conversation.turn_store import TurnStore
from anyclaude.engine.files.fingerprint import fingerprint
from anyclaude.engine.files.folder import ModelFiles, check_folder
from anyclaude.engine.generation.grammar import Constraint, Grammars
from anyclaude.engine.model import adapter
from anyclaude.engine.model.adapter import ToolParser
from anyclaude.engine.model.models import Wanted
from anyclaude.engine.model.sampling import read_defaults
from anyclaude.engine.text.probe import Shape, capabilities, probe
from anyclaude.engine.text.template import Template, TemplateRefused
from anyclaude.engine.text.tokens import Ids, Vocabulary
from anyclaude.errors import ModelRefused
from anyclaude.wire.frames import (
    Capabilities,
    Chat,
    Counted,
    CountTokens,
    Failed,
    Generate,
    Load,
    Prepare,
    Report,
    Told,
    Turn,
)
from anyclaude.wire.model_config import model_name, window_in

_ASSUMED_WINDOW = 65_536
log = logging.getLogger(__name__)


@dataclass(eq=False)
class Reader:
    """One model's words: everything of it but the weights."""

    files: ModelFiles
    vocabulary: Vocabulary
    template: Template
    shape: Shape
    conversations: Conversations
    parser: ToolParser | None
    grammars: Grammars
    wanted: Wanted
    capabilities: Capabilities


class Prompted(Struct, frozen=True):
    """A request whose tokens are known, on its way to the thread of models."""

    request: Generate | Prepare
    reader: Reader
    ids: Ids
    rendered: Rendered | None = None
    constraint: Constraint | None = None


class Prompts:
    """Each method runs on the thread of prompts. `report` answers the server, `pass_on` feeds the thread of models."""

    def __init__(
        self,
        turns: TurnStore,
        versions: tuple[str, str],
        *,
        report: Callable[[Report], None],
        pass_on: Callable[[Prompted], None],
        today: Callable[[], date],
    ) -> None:
        self._turns = turns
        self._versions = versions
        self._report = report
        self._pass_on = pass_on
        self._today = today
        self._readers: dict[Path, Reader] = {}

    def load(self, frame: Load) -> Reader | None:
        try:
            return self._reader(frame.model)
        except ModelRefused as error:
            self._report(Failed(frame.id, "refused", error.message))
            return None

    def count(self, frame: CountTokens) -> None:
        if (found := self._rendered(frame.id, frame.model, frame.chat)) is not None:
            self._report(Counted(frame.id, len(found[1].ids)))

    def generate(self, frame: Generate) -> None:
        found = self._rendered(frame.id, frame.model, frame.chat)
        if found is None:
            return
        reader, rendered = found
        n_prompt, window = len(rendered.ids), reader.capabilities.window
        if n_prompt >= window:
            self._report(Failed(frame.id, "too_long", "the prompt does not fit", n_prompt, window))
            return
        if frame.ahead and frame.request_class == "main" and not frame.is_private:
            self._turns.remember_ahead(frame.ahead, reader.wanted.fingerprint, rendered.ids)
        try:
            constraint = self._constraint(frame, reader, rendered)
        except ValueError as error:
            self._report(Failed(frame.id, "invalid", f"output_config.format: {error}"))
            return
        self._pass_on(Prompted(frame, reader, rendered.ids, rendered, constraint))

    @staticmethod
    def _constraint(frame: Generate, reader: Reader, rendered: Rendered) -> Constraint | None:
        if frame.json_schema is None:
            return None
        close = reader.shape.think_close if rendered.begins_in_reasoning else None
        after = reader.vocabulary.added.get(close) if close else None
        return Constraint(reader.grammars.of_schema(frame.json_schema), after, reader.grammars.eos_ids)

    def prepare(self, frame: Prepare) -> None:
        """Nothing to do is no fault: there may never have been a request of that kind."""
        reader = self.load(Load(frame.id, frame.model))
        if reader is None:
            return
        ids = self._turns.ahead(frame.ahead, reader.wanted.fingerprint)
        if ids is not None and len(ids) < reader.capabilities.window:
            self._pass_on(Prompted(frame, reader, ids))
        else:
            self._report(Told(frame.id, {"n_read": 0, "n_cached": 0, "n_prompt": 0}))

    def commit(self, prompted: Prompted, answer: Turn, generated: Ids) -> None:
        """What was written, so that it reads the same when the client sends it back."""
        assert prompted.rendered is not None
        assert isinstance(prompted.request, Generate)
        is_private = prompted.request.is_private
        prompted.reader.conversations.commit(prompted.rendered, answer, generated, is_private=is_private)

    def forget(self) -> None:
        """Committed turns of every model, in memory and on disk."""
        self._turns.clear()
        for reader in self._readers.values():
            reader.conversations.clear()

    def _rendered(self, request_id: int, model: str, chat: Chat) -> tuple[Reader, Rendered] | None:
        reader = self.load(Load(request_id, model))
        if reader is None:
            return None
        try:
            return reader, reader.conversations.render(chat, self._today())
        except TemplateRefused as error:
            self._report(Failed(request_id, "invalid", f"the model's chat template refuses this: {error}"))
            return None

    def _reader(self, model: str) -> Reader:
        folder = Path(model)
        known = self._readers.get(folder)
        if known is not None:
            return known
        reader = self._read(folder)
        self._readers[folder] = reader
        told = reader.capabilities
        lost = f"; its template leaves out: {', '.join(told.loses)}" if told.loses else ""
        log.info("%s: %s, window %d%s", model_name(model), ", ".join(told.classes), told.window, lost)
        return reader

    def _read(self, folder: Path) -> Reader:
        files = check_folder(folder)
        vocabulary = Vocabulary.read(folder)
        template = Template.read(folder, vocabulary)
        shape = probe(template, vocabulary)
        defaults = read_defaults(folder, files.config)
        defaults = replace(defaults, eos_ids=tuple({*defaults.eos_ids, *shape.end_ids, *vocabulary.end_ids}))
        name = fingerprint(folder, "fp", self._versions)
        conversations = Conversations(vocabulary, template, shape, self._turns, name)
        parser = adapter.tool_parser(template.source, vocabulary.added)
        wanted = Wanted(
            folder, name, frozenset(shape.masked_ids) - set(defaults.eos_ids), defaults, files.weights_bytes
        )
        window = window_in(files.config) or _ASSUMED_WINDOW
        return Reader(
            files,
            vocabulary,
            template,
            shape,
            conversations,
            parser,
            Grammars(folder, defaults.eos_ids),
            wanted,
            capabilities(shape, window),
        )
