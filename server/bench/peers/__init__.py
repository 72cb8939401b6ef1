"""What benchmarks run in processes of their own: the engines that `penstock bench compare` runs in turn, and a server.

child             the process: reads cases as JSON lines, draws their media, answers with times and token ids
on_penstock       runs a case on the public `Engine`
on_transformers   runs it with plain `transformers`: a static batch, or one user with a kept cache
on_vllm           runs it with vLLM's `AsyncLLM`, under the Python of vLLM's environment
watched           a server that says how it does inside, for `penstock bench overhead`

vLLM's Python does not have Penstock. So `child` and `on_vllm` import neither Penstock nor one another.
"""
