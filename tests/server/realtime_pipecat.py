"""Pipecat's OpenAI Realtime service, unmodified, in a pipeline that ends here: what it says to a picture and to sound.

Runs in an environment of its own. Arguments: the server's address, a file of raw RGB pixels 112 by 112, a file of PCM.
Prints one line of JSON for each answer.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InputImageRawFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMTextFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService

URL, PIXELS, SOUND = sys.argv[1], Path(sys.argv[2]).read_bytes(), Path(sys.argv[3]).read_bytes()


class Answers(FrameProcessor):
    """Collects what the service says."""

    def __init__(self) -> None:
        super().__init__()
        self.whole: asyncio.Queue[str] = asyncio.Queue()
        self._words = ""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case LLMTextFrame():
                self._words += frame.text
            case LLMFullResponseEndFrame():
                self.whole.put_nowait(self._words)
                self._words = ""
            case ErrorFrame():
                self.whole.put_nowait(f"error: {frame.error}")
        await self.push_frame(frame, direction)


async def talk(question: str, *frames: Frame) -> list[str]:
    """Push frames and then a question; the answers to each frame that asks, and to the question."""
    sound = events.AudioInput(turn_detection=False)
    properties = events.SessionProperties(output_modalities=["text"], audio=events.AudioConfiguration(input=sound))
    settings = OpenAIRealtimeLLMService.Settings(model="brook", session_properties=properties)
    url = f"{URL.replace('http', 'ws', 1)}/v1/realtime"
    service, answers = OpenAIRealtimeLLMService(api_key="none", base_url=url, settings=settings), Answers()
    task = PipelineTask(Pipeline([service, answers]), params=PipelineParams(audio_in_sample_rate=24_000))
    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    await asyncio.sleep(1)
    said = []
    for frame in frames:
        await task.queue_frame(frame)
        if isinstance(frame, UserStoppedSpeakingFrame):
            said.append(await answers.whole.get())
    await asyncio.sleep(0.5)
    await task.queue_frame(LLMContextFrame(LLMContext([{"role": "user", "content": question}])))
    said.append(await answers.whole.get())
    await task.cancel()
    await running
    return said


async def main() -> None:
    picture = InputImageRawFrame(image=PIXELS, size=(112, 112), format="RGB")
    heard = [InputAudioRawFrame(SOUND[at : at + 4800], 24_000, 1) for at in range(0, len(SOUND), 4800)]
    async with asyncio.timeout(60):
        sys.stdout.write(json.dumps(await talk("What colour is the square?", picture)) + "\n")
        sys.stdout.write(
            json.dumps((await talk("How many beeps were there?", *heard, UserStoppedSpeakingFrame()))[1:]) + "\n"
        )
        sys.stdout.write(json.dumps(await talk("What colour is the square?", InterruptionFrame(), picture)) + "\n")


asyncio.run(main())
