"""Small tokenizers of kinds other than byte-level, learned from this folder's own sources."""

import functools
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from anyclaude.engine.text.added_tokens import Table, added_tokens
from anyclaude.engine.text.tokens import Vocabulary

CONTROL = ("<s>", "</s>", "[INST]", "[/INST]", "<unk>")
_CORPUS = sorted(Path(__file__).parent.glob("*.py"))


@functools.cache
def word_marked_json(prepends: str = "first") -> str:
    """In the manner of sentencepiece: words begin with a mark, unknown characters are bytes. `prepends` is Metaspace's
    scheme, or "legacy": a normalizer that does it to every piece of text."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False, limit_alphabet=80)
    learned.train_from_iterator([path.read_text("utf-8")[:4_000] for path in _CORPUS], trainer)
    model = json.loads(learned.to_str())["model"]
    texts = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocab = {text: n for n, text in enumerate(dict.fromkeys(texts))}
    merges = [tuple(pair) for pair in model["merges"]]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if prepends == "legacy":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepends, split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in CONTROL])
    return made.to_str()


@functools.cache
def unigram_json() -> str:
    """A vocabulary that can itself spell its control tokens: they are likelier than their parts."""
    letters = [(char, -5.0) for char in "▁abcdefgh<>/|s[]INST"]
    made = Tokenizer(models.Unigram([("<unk>", 0.0), ("<s>", -1.0), ("</s>", -1.0), *letters], 0, False))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    made.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in ("<unk>", "<s>", "</s>")])
    return made.to_str()


def vocabulary(tokenizer: str, config: Table | None = None) -> Vocabulary:
    table: Table = json.loads(tokenizer)
    return Vocabulary(table, added_tokens(table, config or {}), config or {}, frozenset())
