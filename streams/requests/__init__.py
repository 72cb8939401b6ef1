"""What a request says: a conversation, a prompt and its media, how replies are sampled. Message formats, no media time.

request.py     how a stream is opened, how a reply is sampled
structured.py  what a reply has to look like
window.py      how much of its past a stream keeps
turns.py       when it listens for speech, and what it does then
messages.py    a conversation and its parts, checked
data_url.py    data: URLs and base64
prompt.py      what a whole prompt is given from, as plain data
raw_rows.py    rows that were made elsewhere, in a content part
whole.py       its media, decoded
transcription.py  how a model is asked for the words of a sound
options.py     options of the model's processor, checked and kept to
"""
