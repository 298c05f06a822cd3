"""Answers that can be traced: a keyed watermark in the choice of tokens, and fingerprints of what was delivered."""
