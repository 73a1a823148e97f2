"""What the ledger keeps of a prompt's section: where it stood, how long it was, and digests. No text."""

from msgspec import Struct

SPAN = 256  # characters of text that one mark stands for


class SectionRow(Struct, frozen=True):
    """`digest` names kind, role and text (16 bytes of SHA-256). `marks` holds four bytes of CRC-32 for every SPAN
    characters of a text that is longer than one span."""

    kind: str
    name: str
    n_characters: int
    digest: bytes
    marks: bytes = b""
