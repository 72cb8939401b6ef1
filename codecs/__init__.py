"""Bytes to frames. Knows Pillow, PyAV and torchaudio; knows neither asyncio, models nor the policy of media time.

frame.py      Pixels and Samples, what every decoder gives; Lost
limits.py     how large media may be      picture.py    JPEG, PNG, WebP, GIF and raw frames -> pixels, with
    metadata.py   what stands beside them: EXIF, texts
container.py  WebM, MP4, MPEG-TS and sound files, fed in any cuts, in five steps:
    parts.py      bytes -> pieces (piece.py) of files in a row, by sniff.py (which format), boxes.py and fragment.py
                  (MP4), transport.py (MPEG-TS), wave.py, adts.py and marks.py (the others)
    feeding.py    pieces to the decoding thread, batches of frames back
    tracks.py     the thread: PyAV, with damage.py (what a fault costs) and clock.py (times that go on)
    avframe.py    PyAV's frames as arrays: colours, square pixels; hdr.py: high dynamic range
    reading.py    what callers ask of a decoder
pcm.py        raw sound -> Samples        resample.py   any rate and channels -> mono at one rate, no seams
resize.py     the processors' own resize  mel.py        log-mel of blocks, equal to Whisper's
silero.py     a window of sound -> how likely it is speech; smart_turn.py: a turn -> how likely it is finished
tensors.py    safetensors -> arrays
worker.py     decoding in processes with memory and time limits
decoders.py   in this process or in those
wheels.py     mends torchaudio and torchvision wheels that do not load beside this torch
"""
