"""The HTTP door: OpenAI-compatible requests become signed records, response records become answers."""
