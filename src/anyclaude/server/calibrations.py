"""What a character costs in tokens, by server and model, kept in the ledger's file."""

import sqlite3

import msgspec

from anyclaude.backends.estimate import Calibration
from anyclaude.backends.knowledge import ModelKey
from anyclaude.telemetry.ledger import Ledger


def load_calibrations(ledger: Ledger) -> dict[ModelKey, Calibration]:
    return {
        (row["backend"], row["base_url"], row["model"]): Calibration.read(row["state"])
        for row in ledger.read("SELECT * FROM calibration")
    }


def save_calibration(ledger: Ledger, key: ModelKey, calibration: Calibration) -> None:
    values = (*key, msgspec.json.encode(calibration))

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO calibration (backend, base_url, model, state) VALUES (?, ?, ?, ?)", values
        )

    ledger.put(write)
