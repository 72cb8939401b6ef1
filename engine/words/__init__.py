"""Words to token ids and back. Knows tokenizers; no streams and no models.

spelling.py     a user's words become ids; control tokens in them stay words
template.py     what a chat template writes around words and media, learnt from it
grammar.py      what may be said next, by a schema or a grammar
detokenize.py   ids become text that never shows half a character
"""
