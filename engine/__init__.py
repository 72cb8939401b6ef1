"""The engine: segments in, tokens out. Synchronous; knows torch and transformers, not asyncio, bytes or sockets.

config.py core.py       how it is set up; load a checkpoint and drive the three parts by hand
scheduler.py            the owner of streams' lives and pages: plan() before a step, commit() after it
  policy.py pages.py    which rows go next (pure); who holds which page
  pace.py               how many rows fit into a time
  stream.py kept.py     one stream's rows; the spans that are kept to feed it anew
  conversation.py       inputs become rows, sampled tokens become replies
  journal.py            what happened, so that a run can be repeated
  layout.py             events to rows by the format's table
  positions.py rotary.py    positions; which rotary ones are served
  reply.py span.py plan.py  one reply; what goes between the parts
  spelling.py           words to ids: control tokens in a user's words stay words
  detokenize.py         text that never shows half a character
language.py             the owner of the language model and the KV cache: carries out a plan
  graphs.py             decode steps as graphs, each one launch
  attention.py attention_cpu.py     paged attention: door and reference, CPU
  attention_triton.py attention_varlen.py     CUDA: our kernel, torch's own
  sampler.py upload.py  drawing tokens; from the host to a device without waiting
checkpoint.py hub.py    where a checkpoint is: a folder, or a model on the Hub, downloaded
  out_of_memory.py      which errors mean that memory ran out
weights.py placement.py memory.py worst.py  what a checkpoint needs; on which device, in which type; who has how much
forecast.py             the same without weights, also for a device that is not here
int8.py                 linear layers in int8
library.py probe.py     the one door to transformers; does a decoder compute here what it computes there?
gguf.py                 a model out of a GGUF file, saved as transformers saves models
compute.py threads.py   what can compute on this machine; how many threads do
prompt.py               a whole prompt through the model's own processor
encoder.py gate.py      the towers behind a cache by content; steps go before towers
family.py template.py families/             what a family of models is; learning a chat template
brook/                  the embedded model's home
"""
