"""The home of Brook, the embedded model, which is loaded where no model is named. There is no code here.

model.safetensors and the .json files   Brook, as `from_pretrained` loads it; trained by `penstock.demos.brook`
MODEL_CARD.md                           what Brook knows, how well, and how it was taught
"""
