from anyclaude.prompt.own import is_own, own_signature
from anyclaude.wire.blocks import TextBlock, ThinkingBlock

TEXT = "reading the prompt: 5 of 9 tokens 😀"


def test_a_block_of_ours_is_known_by_its_signature() -> None:
    assert is_own(ThinkingBlock(TEXT, own_signature(TEXT)))


def test_a_block_is_ours_only_as_a_whole_and_unchanged() -> None:
    signature = own_signature(TEXT)

    assert not is_own(ThinkingBlock(TEXT + " ", signature))
    assert not is_own(ThinkingBlock(TEXT, signature[:-1]))
    assert not is_own(ThinkingBlock(TEXT, own_signature("")))


def test_a_models_own_thoughts_are_not_ours() -> None:
    assert not is_own(ThinkingBlock(TEXT))
    assert not is_own(ThinkingBlock(TEXT, "EqQBCkgIAxABGAI="))
    assert not is_own(TextBlock(own_signature(TEXT)))
