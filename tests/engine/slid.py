"""A rig whose streams slide, beside a dense reference that is told what left: every logit that was drawn from is
compared.

What leaves is the engine's choice; what the rows are then worth is the reference's. It gets the embeddings and
positions that go into the decoder, row by row, and the rows that are left, with the positions at which they count.
"""

from __future__ import annotations

from typing import Any

import torch
from penstock.engine.conversation.fronts import OldRows
from penstock.engine.plan import Feed, Plan, Result

from tests.reference.sliding import Held

from .rig import ROUNDING, TOLERANCE, Rig, Session


class SlidRig(Rig):
    """`model`: the same checkpoint as plain `transformers` has it."""

    def __init__(self, loaded: Any, model: Any, **config: Any) -> None:
        super().__init__(loaded, **{"prefix_cache": False, **config})  # what is found there the witness has not seen
        self.model, self.known = model, plain_positions(model)
        self.dense: dict[int, Held] = {}
        self.ids: dict[int, list[int]] = {}  # of each row of a stream
        self.compared = 0
        self._given: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]] = (torch.empty(0), torch.empty(0), [])
        language: Any = self.core.language
        decoded, run = language._decoded, language.run

        def listening(embeds: torch.Tensor, positions: torch.Tensor, step: Any, deep: dict[str, Any]) -> torch.Tensor:
            self._given = (embeds, positions, [part[0] for part in deep.get("deepstack_visual_embeds", ())])
            return decoded(embeds, positions, step, deep)

        def watched(plan: Plan) -> Result:
            """Before the step is committed, which may let rows go."""
            result = run(plan)
            self._witness_rows(plan, result)
            return result

        language._decoded, language.run = listening, watched

    def fork(self, session: Session) -> Session:
        twin = super().fork(session)
        self.dense[twin.stream] = self.dense[session.stream].copy()
        self.ids[twin.stream] = list(self.ids[session.stream])
        return twin

    def _witness(self, plan: Plan, result: Result) -> None:
        self.plans.append(plan)

    def _witness_rows(self, plan: Plan, result: Result) -> None:
        embeds, positions, deep = self._given
        tokens, drawn, start = iter(result.tokens), 0, 0
        for feed in plan.feeds:
            count = sum(len(run) for run in feed.rows)
            here = slice(start, start + count)
            logits = self._feed(feed, embeds[here], positions[:, here], [part[here] for part in deep])
            start += count
            if feed.draw is not None:
                assert self.core.language.logits is not None
                self._compare(logits, self.core.language.logits[drawn], next(tokens))
                drawn += 1

    def _feed(self, feed: Feed, embeds: torch.Tensor, positions: torch.Tensor, deep: list[torch.Tensor]) -> Any:
        stream = self.core.scheduler.streams[feed.stream]
        dense = self.dense.setdefault(feed.stream, Held(self.model, self.known))
        ids = self.ids.setdefault(feed.stream, [])
        first = stream.table.base + feed.first
        dense.truncate(first)
        del ids[first:]
        if feed.fronts:
            self._slide(dense, stream, ids)
        for run in feed.rows:
            ids.extend(run.ids.tolist())
        logits, start = [], 0
        for run in feed.rows:
            here = slice(start, start + len(run))
            part = [one[here] for one in deep]
            logits.append(
                dense.feed(embeds[here], positions[:, here], atomic=run.atomic, deep=part or None, ids=run.ids.tolist())
            )
            start += len(run)
        return logits[-1][-1]

    def _slide(self, dense: Held, stream: Any, ids: list[int]) -> None:
        fronts = stream.fronts
        lift = fronts.position - fronts.memory.stop
        pinned = lift + fronts.memory.first - fronts.pinned.stop
        dense.slide(
            pinned=self._rows(fronts.pinned, ids),
            lift_pinned=pinned,
            memory=self._rows(fronts.memory, ids),
            lift_memory=lift,
            begin=stream.table.begin,
        )

    def _rows(self, front: OldRows, ids: list[int]) -> list[tuple[int, int]]:
        """Rows of a front and their positions on its clock. Marks of media are left out of words that were moved."""
        found: list[tuple[int, int]] = []
        for row, run in front.laid:
            for id, position in zip(run.ids.tolist(), run.positions[0].tolist(), strict=True):
                while ids[row] != id:
                    row += 1
                found.append((row, position))
                row += 1
        return found

    def _compare(self, logits: torch.Tensor, got: torch.Tensor, token: int) -> None:
        error, largest = float((got - logits).abs().max()), float(logits.abs().max())
        assert error < max(TOLERANCE, ROUNDING * largest), f"logits differ by {error}"
        best = logits.topk(2).values
        assert token == int(logits.argmax()) or best[0] - best[1] < 1e-3
        self.compared += 1


def plain_positions(model: Any) -> int:
    """The positions that a model has, of a whole Omni those of its decoder."""
    return int(model.config.get_text_config(decoder=True).max_position_embeddings)
