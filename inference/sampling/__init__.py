"""Choosing the next token: filters, Gumbel-max draws, watermark-ready."""
