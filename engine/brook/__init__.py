"""The home of Brook, the embedded model, and of the small models that tests run on.

    model.safetensors and the .json files   Brook, as `from_pretrained` loads it; trained by `penstock.demos.brook`
    recipe.py    small models with random weights, their tokenizer and processor, and the cache they live in
    one_axis.py  those among them whose rows stand on one axis of positions
    parts.py     what these have in common: sizes, tokenizer, weights
    text.py      the vocabulary's sentences and the chat templates

Brook is what is loaded where no model is named. The random models' words mean nothing, but they see, hear and order
what they are given.
"""
