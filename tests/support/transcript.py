"""A server that answers as one of the transcripts tells, on a real socket."""

import json
from typing import Any

from tests.recorded import TRANSCRIPTS
from tests.support.backend import Exchange, Script, ScriptedBackend


class TranscriptServer(ScriptedBackend):
    """`kind` is a folder of transcripts. `answers` may be changed while it runs; LM Studio answers 200 to any path."""

    def __init__(self, kind: str, script: Script) -> None:
        super().__init__(script)
        recorded = json.loads((TRANSCRIPTS / kind / "identify.json").read_text("utf-8"))
        self.kind = kind
        self.answers: dict[str, dict[str, Any]] = {path.removeprefix("GET "): found for path, found in recorded.items()}

    def get(self, exchange: Exchange) -> None:
        found = self.answers.get(exchange.path)
        if found is None:
            known = self.kind == "lmstudio"
            exchange.json(200 if known else 404, {"error": f"Unexpected endpoint or method. (GET {exchange.path})"})
            return
        headers = {name.replace("-", "_"): value for name, value in found["headers"].items() if name != "Content-Type"}
        body = found["body"]
        if isinstance(body, str):
            exchange.start(found["status"], "text/plain", **headers)
            exchange.send(body.encode())
        else:
            exchange.json(found["status"], body, **headers)
