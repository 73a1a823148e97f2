"""Pure Anthropic and OpenAI translation: no state between requests, no await."""
