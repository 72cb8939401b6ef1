"""Frames to segments, by media time alone. No asyncio, no sockets, no torch modules.

item.py        what a client appends
requests/      what a request says: messages, prompts, sampling; message formats, no media time
event.py       what a stream tells its client
segment.py     the smallest media that a model takes exactly
rows.py        rows that an encoder made elsewhere, as a segment
size.py        the size at which a picture goes in
video.py       the causal sampler and temporal patches
audio.py       runs of sound and their blocks
unit.py        a video and its sound, interleaved
listening/     when somebody speaks
order.py       frames and sound by media time, as far as the lateness reaches
sieve.py       what need not go to the model left out
tracks.py      frames and sound side by side, in the order in which they were sent
timeline.py    all of it: frames in, segments out
format.py      how media, questions and replies become turns
"""
