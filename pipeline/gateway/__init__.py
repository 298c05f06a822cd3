"""The GATEWAY serves HTTP: OpenAI-compatible requests become signed records, responses become answers."""
