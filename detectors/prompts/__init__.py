"""Prompt injection: phrase rules and a learned scorer over several views of each text."""
