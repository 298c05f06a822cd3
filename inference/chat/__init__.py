"""Chat messages to tokens and back."""
