# Teaches Brook from nothing, for `make brook`. In: BIN, the folder of the python to use. Out: $(OUT)/brook/model, which
# `penstock serve` takes.
#
# Two chains of lessons, each on a core of its own: what is heard, and then the words, with what is seen taken from the
# scene; and what is seen. Then more words, and at last what the tower sees in place of the scene. What is there already
# is not made again.

OUT ?= taught
DEVICE ?= cpu

# A GPU takes batches four times as large and so fewer of them, the towers go on learning to the end, and several
# processes draw the data, since it would wait for one.
ifneq ($(filter cuda%,$(DEVICE)),)
ROWS = 18000
WORKERS = 8
FIRST_WORDS = 350
WORDS = 1200
LAST = --steps 500 --rate 1.5e-3 --towers 0.15 --seconds 2 8.5
else
ROWS = 4500
WORKERS = 1
FIRST_WORDS = 700
WORDS = 3000
LAST = --steps 450 --rate 1.2e-3 --hard 0.7 --seconds 1.5 8
endif

PLACE = --device $(DEVICE) --workers $(WORKERS)
TEACH = $(BIN)/python -m penstock.demos.brook.teach $(PLACE)
TRAIN = $(BIN)/python -m penstock.demos.brook.train $(PLACE) --rows $(ROWS)

.DELETE_ON_ERROR:

$(OUT)/brook: $(OUT)/words $(OUT)/fit.pt
	$(TRAIN) --resume $(OUT)/words/training.pt --sight $(OUT)/fit.pt $(LAST) --cooling 1 --seed 403 --out $@.part
	mv $@.part $@

$(OUT)/words: $(OUT)/first-words $(OUT)/fit.pt
	$(TRAIN) --oracle --resume $(OUT)/first-words/training.pt \
		--steps $(WORDS) --rate 2.5e-3 --cooling 0.2 --hard 0.5 --seconds 1 6 --seed 402 --out $@.part
	mv $@.part $@

$(OUT)/first-words: $(OUT)/hearing.pt
	$(TRAIN) --oracle --hearing $< --threads 1 \
		--steps $(FIRST_WORDS) --rate 2.5e-3 --cooling 0.02 --hard 0.5 --seconds 1 6 --seed 401 --out $@.part
	mv $@.part $@

$(OUT)/fit.pt: $(OUT)/sight.pt
	$(TEACH) fit --sight $< --steps 1000 --seed 2 --out $@

$(OUT)/sight.pt: | $(OUT)
	$(TEACH) sight --steps 1400 --out $@

$(OUT)/hearing.pt: | $(OUT)
	$(TEACH) hearing --steps 1300 --out $@

$(OUT):
	mkdir -p $@
