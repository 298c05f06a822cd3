"""The making of the shipped model: corpus, training loop, evaluation. Not imported when serving."""
