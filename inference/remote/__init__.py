"""An engine behind HTTP: a server that speaks OpenAI's chat completions, vLLM (0.32 or later) first."""
