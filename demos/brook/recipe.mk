# Teaches Brook from nothing, for `make brook`. In: BIN, the folder of the python to use. Out: $(OUT)/brook/model, which
# `penstock serve` takes.
#
# Two chains of lessons, each on a core of its own: what is heard, and then the words, with what is seen taken from the
# scene; and what is seen. Then more words, on both cores, and at last what the tower sees in place of the scene. What is
# there already is not made again.

OUT ?= taught
DEVICE ?= cpu

TEACH = $(BIN)/python -m penstock.demos.brook.teach
TRAIN = $(BIN)/python -m penstock.demos.brook.train --device $(DEVICE) --rows 4500

.DELETE_ON_ERROR:

$(OUT)/brook: $(OUT)/words $(OUT)/fit.pt
	$(TRAIN) --resume $(OUT)/words/training.pt --sight $(OUT)/fit.pt \
		--steps 450 --rate 1.2e-3 --cooling 1 --hard 0.7 --seconds 1.5 8 --seed 403 --out $@.part
	mv $@.part $@

$(OUT)/words: $(OUT)/first-words $(OUT)/fit.pt
	$(TRAIN) --oracle --resume $(OUT)/first-words/training.pt \
		--steps 3000 --rate 2.5e-3 --cooling 0.2 --hard 0.5 --seconds 1 6 --seed 402 --out $@.part
	mv $@.part $@

$(OUT)/first-words: $(OUT)/hearing.pt
	$(TRAIN) --oracle --hearing $< --threads 1 \
		--steps 700 --rate 2.5e-3 --cooling 0.02 --hard 0.5 --seconds 1 6 --seed 401 --out $@.part
	mv $@.part $@

$(OUT)/fit.pt: $(OUT)/sight.pt
	$(TEACH) fit --sight $< --device $(DEVICE) --steps 1000 --seed 2 --out $@

$(OUT)/sight.pt: | $(OUT)
	$(TEACH) sight --device $(DEVICE) --steps 1400 --out $@

$(OUT)/hearing.pt: | $(OUT)
	$(TEACH) hearing --device $(DEVICE) --steps 1300 --out $@

$(OUT):
	mkdir -p $@
