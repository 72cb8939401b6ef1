"""When somebody speaks: sound in, the sound of speech and events out. Causal; no torch, no clocks, no threads.

detectors.py   which detectors there are, found by name (codecs/silero.py is one)
energy.py      how likely it is that a window of sound is speech, by its level and its spectrum
rule.py        likelihoods to starts and stops of speech
ear.py         one stream's sound: what of it is speech goes on, and the rest is told
"""
