"""Ordinary applications as accounts: sessions of requests that an application of a shape would send."""
