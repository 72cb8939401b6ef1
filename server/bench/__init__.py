"""`penstock bench`: what the engine costs, measured on the machine that asks.

options     what may be said on the command line; the one module here that is imported for `--help`
latency     `penstock bench latency`: one user, on the public `Engine`
guesses     the same with guessed tokens, beside the engine without
throughput  `penstock bench throughput`: many requests at once, on the public `Engine`
live        `penstock bench live`: pictures that arrive while a reply is spoken, through a server
capacity    `penstock bench capacity`: how many live streams a server keeps up with
endless     `penstock bench endless`: does anything grow in hours of one camera?
asides      `penstock bench asides`: many questions at once about one camera
pairs       the frames of both
ways        ways in which a camera lives on, which `endless` compares
overhead    `penstock bench overhead`: what many live streams cost beside the model, and where the time goes
compare     `penstock bench compare`: latency and throughput of several engines in turn
bargein     `penstock bench bargein`: first tokens after somebody has spoken into a reply
append      `penstock bench append`: one append and one decode step, by length of history
cache       `penstock bench cache`: one decode step, by the type of the KV cache
grammar     `penstock bench grammar`: what structured replies cost
alone       cases on Penstock alone
cases       what is run, and how rounds are interleaved
arithmetic  from times to figures
figures     how figures are printed
chart       lines as a picture
camera      a client that shows pictures at a fixed pace
served      the server that is measured
planning    the scheduler alone
profile     a sampling profile of a server, and its parts
peer        an engine in a process of its own, as seen from here; `peers` is what runs there
presets     models with random weights at real shapes
costs, others, models, stock    what `append` measures, and the small model on which it does

The rest of the server knows neither torch nor transformers. These modules do, because they time both; so `penstock`
imports them only when a benchmark is asked for.
"""
