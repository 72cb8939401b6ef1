"""`penstock bench`: what the engine costs, measured on the machine that asks.

append      `penstock bench append`: prints what is measured
costs       one append and one decode step, by length of history, on the hand-driven `Core`
latency     a running reply while other streams append, on the public `Engine`
models      the model that is measured, small and with random weights
stock       the same appends and decode steps by plain `transformers`

The rest of the server knows neither torch nor transformers. These modules do, because they time both; so `penstock`
imports them only when a benchmark is asked for.
"""
