"""The load of the machine on which somebody looks: processors, memory, GPUs."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

#: A call of nvidia-smi takes a processor's time, more with more GPUs; with one H100 24 ms.
GPU_SECONDS = 30.0
_QUERY = "index,name,utilization.gpu,memory.used,memory.total"


class Machine:
    """Looks at the machine; at its GPUs now and then only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gpus: list[dict[str, Any]] = []
        self._looked = float("-inf")

    def load(self) -> dict[str, Any]:
        """``host``, ``cpus``, ``load`` (mean of a minute), ``memory`` (used and whole, GB) and ``gpus``."""
        with self._lock:
            if time.monotonic() - self._looked > GPU_SECONDS:
                self._gpus = read_gpus()
                self._looked = time.monotonic()
        return {
            "host": socket.gethostname(), "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
            "memory": _memory(), "gpus": self._gpus,
        }  # fmt: skip


def _memory(path: Path = Path("/proc/meminfo")) -> tuple[float, float] | None:
    try:
        kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB", path.read_text(), re.MULTILINE))
        whole, free = int(kilobytes["MemTotal"]), int(kilobytes["MemAvailable"])
    except (OSError, KeyError):
        return None
    return round((whole - free) / 1e6), round(whole / 1e6)


def read_gpus() -> list[dict[str, Any]]:
    """NVIDIA's GPUs as ``nvidia-smi`` sees them: ``index``, ``name``, ``busy`` (%), ``used`` and ``whole`` (GB)."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [gpu for line in done.stdout.splitlines() if (gpu := _gpu(line))]


def _gpu(line: str) -> dict[str, Any] | None:
    words = [word.strip() for word in line.split(",")]
    if len(words) != 5:
        return None

    def number(text: str) -> float | None:
        return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None

    used, whole = (None if (value := number(text)) is None else round(value / 1024, 1) for text in words[3:])
    return {"index": words[0], "name": words[1], "busy": number(words[2]), "used": used, "whole": whole}
