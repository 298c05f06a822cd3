"""GATEWAY serves HTTP: OpenAI-compatible requests become signed records, response records become answers."""
