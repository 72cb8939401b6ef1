"""The examples that `--help` shows, by command."""

from __future__ import annotations

EXAMPLES = {
    "": """
examples:
  penstock ask clip.mp4 "What happens?"    show a film to Brook, the small model that comes along
  penstock ask --model Qwen/Qwen2.5-VL-3B-Instruct photo.jpg "What is on the table?"
  penstock serve                           serve Brook, with a page at http://127.0.0.1:8000
  penstock COMMAND --help                  the options of a command
""",
    "watch": '\nexample:\n  penstock watch camera "Tell me when a red thing comes in." --jsonl alerts.jsonl',
    "ask": """
examples:
  penstock ask clip.mp4 "What happens?"
  penstock ask --model Qwen/Qwen2.5-VL-3B-Instruct photo.jpg "What is on the table?"
  penstock ask --url 127.0.0.1:8000 first.mp4 second.mp4 "What has changed?"
  penstock ask --live camera "Tell me what happens."
  ffmpeg -i rtsp://door.local/stream -c copy -f mpegts - | penstock ask --live - "Who comes?"
""",
    "serve": """
examples:
  penstock serve                                        Brook, on this machine only
  penstock serve Qwen/Qwen2.5-VL-3B-Instruct --port 8080
  PENSTOCK_API_KEY=change-me penstock serve --host 0.0.0.0
""",
    "encode-serve": """
examples:
  penstock encode-serve Qwen/Qwen2.5-VL-3B-Instruct           then, here or elsewhere, one engine or several:
  penstock serve Qwen/Qwen2.5-VL-3B-Instruct --encoder ws://127.0.0.1:8001
""",
    "config": """
examples:
  penstock config                                       what penstock serve would do here, and why
  penstock config --config /etc/penstock.toml --json
""",
    "replay": """
examples:
  penstock serve --record records          then, with a file that it has written:
  penstock replay records/penstock-20261128-170012-4711.record
""",
    "plan": """
examples:
  penstock plan Qwen/Qwen2.5-VL-3B-Instruct                   on this machine
  penstock plan Qwen/Qwen2.5-VL-3B-Instruct --device-gib 24 --max-pixels 1000000
""",
}
