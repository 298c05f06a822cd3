"""The making of the prompt scorer's weights; nothing here is needed to serve."""
