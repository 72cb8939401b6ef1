"""Bytes to frames. Knows Pillow, PyAV and torchaudio; knows neither asyncio, models nor the policy of media time.

errors.py     the tree of errors          frame.py      Pixels and Samples, what every decoder gives
limits.py     how large media may be      picture.py    JPEG, PNG, WebP, GIF and raw frames -> pixels
sniff.py      which container is this     container.py  WebM, MP4, MPEG-TS and sound files, fed in any cuts
pcm.py        raw sound -> Samples        resample.py   any rate and channels -> mono at one rate, no seams
resize.py     the processors' own resize  mel.py        log-mel of blocks, equal to Whisper's
worker.py     decoding in processes with memory and time limits
decoders.py   in this process or in those
avframe.py    PyAV's frames as arrays
wheels.py     mends torchaudio and torchvision wheels that do not load beside this torch
"""
