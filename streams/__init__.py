"""Frames to segments, by media time alone. No asyncio, no sockets, no torch modules.

item.py        what a client appends
request.py     how a stream is opened, how a reply is sampled
messages.py    a conversation and its parts, checked
data_url.py    data: URLs and base64
prompt.py      what a whole prompt is given from, as plain data
whole.py       its media, decoded
options.py     options of the model's processor, checked and kept to
event.py       what a stream tells its client
segment.py     the smallest media that a model takes exactly
size.py        the size at which a picture goes in
video.py       the causal sampler and temporal patches
audio.py       runs of sound and their blocks
unit.py        a video and its sound, interleaved
order.py       frames and sound by media time, as far as the lateness reaches
tracks.py      frames and sound side by side, in the order in which they were sent
timeline.py    all of it: frames in, segments out
format.py      how media, questions and replies become turns
"""
