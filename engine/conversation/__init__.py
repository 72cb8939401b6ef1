"""One stream: its inputs become rows, its sampled tokens become replies. Hands out no pages and runs no model.

waiting.py      inputs that have not acted yet, in order
state.py        rows laid out, how far they are fed
rules.py        the life of a question and its reply, as a table
conversation.py what each input and each token changes
telling.py      which command is which call of it
reply.py        one reply while it runs
silence.py      when it can wait for media
layout.py       events become rows, by the format's table
keys.py         what a full page holds, as a key
kept.py         embeddings that are kept to feed a stream again
"""
