"""One stream: its inputs become rows, its sampled tokens become replies. Hands out no pages and runs no model.

waiting.py      inputs that have not acted yet, in order
state.py        rows laid out, how far they are fed
rules.py        the life of a question and its reply, as a table
conversation.py what each input and each token changes
telling.py      which command is which call of it
reply.py        one reply while it runs
silence.py      when it can wait for media
taking.py       whether media goes in now, behind what is said
marks.py        places of a stream to which a copy can go back
twins.py        a stream once more
going_back.py   a copy goes back
freezing.py     one stream's state as bytes, and back
laying.py       rows are laid if they fit
window.py       what leaves a stream's window, and when
fronts.py       what is held from before it: what is pinned, and the text memory
layout.py       events become rows, by the format's table
keys.py         what a full page holds, as a key
carried.py      where its states lie, where layers keep any
kept.py         embeddings that are kept to feed a stream again
"""
