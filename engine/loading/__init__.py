"""A checkpoint becomes a model that can be served, and shares out the memory of its device.

open.py         the way through: find, choose, load
checkpoint.py hub.py    where a checkpoint is: a folder, or a model on the Hub, downloaded
weights.py placement.py what its weights need; on which device, in which type of number
memory.py worst.py      who has how much; what the largest step and the largest turn of the encoder take
forecast.py     the same without weights, also for a device that is not here
compute.py gain.py      what can compute on this machine; how much faster a CPU is in bfloat16
draft.py        a second checkpoint that guesses the tokens of the first
fingerprint.py  what tells a model from others
quantised.py first_run.py   whether a quantised checkpoint can be loaded here, and its layers run
inner.py        what a quantised tensor consists of
towers.py       towers without their decoder, and what tells them from others
adapter.py fitting.py   an adapter as peft saves it; its layers found in a loaded model
int8.py         linear layers in int8
gguf.py         a model out of a GGUF file, saved as transformers saves models
"""
