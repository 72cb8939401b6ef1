"""The home of the embedded model. It takes nothing and gives a folder that `from_pretrained` can load.

    recipe.py    small models with random weights, their tokenizer and processor, and the cache they live in
    text.py      the vocabulary's sentences and the chat templates

Until trained weights live here, the engine's default model is the small random one that `recipe.py` builds: its words
mean nothing, but it sees, hears and orders what it is given.
"""
