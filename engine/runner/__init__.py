"""What computes: the language model over its KV cache, and the towers that encode media. Knows plans, not streams.

language.py     the owner of the language model: carries out a plan
cache.py        the KV cache: pages of keys and values, and what is done to them between steps
shapes.py       what one row takes in it, by layer
crossing.py     layers whose words read media by cross-attention
states.py       layers that keep one state of all rows: many streams in a step, and where their states lie
decoder.py linears.py   a decoder in fewer operations; its linear layers as they are fastest
lora.py         adapters over linear layers, several in one batch
takeover.py     does it compute here what the library's module computes?
batch.py        the rows of a step, back to back
beside.py       what some decoders take beside them
graphs.py       steps as graphs, each one launch
pointwise.py pointwise_triton.py        norms, rotary positions, gates: by torch's operators; CUDA, in fused kernels
backends.py     which attention backend runs, and which kernels
attention.py attention_cpu.py           paged attention: the door from transformers and the reference; CPU
attention_cpu_long.py                   long runs of appended rows on the CPU
narrow.py       keys and values in eight bits
attention_triton.py attention_varlen.py CUDA: our kernel; torch's own
sampler.py filters.py   drawing tokens; which of them may be drawn
guesses.py drafter.py   guessed tokens in a step, and which were right; the draft model
blocks.py upload.py     the largest of many values; from the host to a device without waiting
encoder.py gate.py      the towers behind a cache by content; the one thread that computes
ready.py        rows made elsewhere, put into a whole prompt
spans.py        the span store: embeddings, where the towers made them
library.py      the one door to transformers
rotary.py       which rotary positions are served
angles.py turning.py    positions as angles; do rows of this checkpoint turn like that?
probe.py        does a decoder compute here what it computes in transformers?
out_of_memory.py    which errors mean that memory ran out
threads.py groups.py    how many threads compute; what the control groups of the process say
"""
