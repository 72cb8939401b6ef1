"""All streams: who goes next and who holds which page. Decides; runs nothing.

scheduler.py    the owner of streams and pages: plan() before a step, commit() after it
policy.py       which rows go into a step, and which segments to the encoder (pure)
places.py       which streams may be open
needs.py        what one stream needs of the next step (pure)
host.py         streams whose pages are in host memory
freezing.py     streams that are copied to go on elsewhere
precedence.py   whose rows go into a step before older ones
finding.py      which pages a stream goes on with instead of computing its first rows
granting.py     which segments the encoder begins next, and which are dropped; how much time is left for them
timeliness.py   how timely media is, measured
usage.py        what streams have cost
admission.py    whether the machine keeps up with one more live stream
pace.py         how many rows fit into a time
conservation.py the laws of conservation
journal.py      what happened, so that a run can be repeated
"""
