"""Text generation: engine protocol, batching scheduler, torch engine and the shipped model."""
