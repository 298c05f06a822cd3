"""How the shipped model is made: corpus, training loop, evaluation. Not imported when serving."""
