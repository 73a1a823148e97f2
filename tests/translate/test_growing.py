"""What a server is sent only grows: each turn's messages begin with those of the turn before, for every policy."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from anyclaude.backends.kinds import KINDS
from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.policy import Policy, fitted
from anyclaude.translate.profile import Profile
from anyclaude.translate.request import chat_messages
from anyclaude.wire.openai import ChatMessage
from tests.prompt.conversations import Conversation, conversations, policies

PROFILES = st.builds(
    lambda kind, policy: replace(kind.profile, policy=policy),  # pyright: ignore[reportUnknownLambdaType]
    st.sampled_from([kind for kind in KINDS.values() if kind.speaks == "openai"]),
    policies(),
)


def written(prompt: Prompt, profile: Profile) -> tuple[ChatMessage, ...]:
    return chat_messages(fitted(prompt, profile.policy), profile)


@settings(max_examples=200, deadline=None)
@given(conversation=conversations(with_empty_answers=False), profile=PROFILES)
def test_each_turns_messages_begin_with_those_of_the_turn_before(conversation: Conversation, profile: Profile) -> None:
    """Whole messages: a server has read the end of the last one, too."""
    for earlier, later in itertools.pairwise(written(prompt, profile) for prompt in conversation.prompts):
        assert later[: len(earlier)] == earlier
        assert len(later) > len(earlier)


@settings(max_examples=200, deadline=None)
@given(conversation=conversations(), policy=policies())
def test_where_turns_must_alternate_the_template_of_mistral_is_content(
    conversation: Conversation, policy: Policy
) -> None:
    """It looks at the turns that are neither results nor calls: user and assistant in turn, the user first."""
    profile = Profile(policy=replace(policy, alternates=True))
    for prompt in conversation.prompts:
        messages = [message for message in written(prompt, profile) if message.role != "system"]

        roles = [message.role for message in messages if message.role != "tool" and not message.tool_calls]
        assert roles == [("user", "assistant")[n % 2] for n in range(len(roles))]
        assert ("tool", "user") not in itertools.pairwise(message.role for message in messages)


@settings(max_examples=100, deadline=None)
@given(conversation=conversations(), policy=policies())
def test_where_one_call_a_turn_is_allowed_each_is_followed_by_its_result(
    conversation: Conversation, policy: Policy
) -> None:
    profile = Profile(policy=replace(policy, one_call=True))
    for prompt in conversation.prompts:
        messages = written(prompt, profile)
        for call, result in itertools.pairwise(messages):
            assert len(call.tool_calls) <= 1
            if call.tool_calls:
                assert result.tool_call_id == call.tool_calls[0].id
