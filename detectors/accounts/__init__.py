"""Accounts that copy a model: what one request shows, what an account's requests add up to, and what to do about it."""
