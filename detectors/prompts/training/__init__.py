"""How the weights of the prompt scorer are made; nothing here is needed to serve."""
