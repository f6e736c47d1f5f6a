"""The settings as the file has them now, for whoever begins something new."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from orchestrator.configured.settings import ServiceSettings, read
from orchestrator.errors import ConfigError

_log = logging.getLogger(__name__)


class Settings:
    """Reads the file again when it has changed. A file that is wrong changes nothing, and is logged once. Thread-safe.

    What is at work keeps the settings that it began with. Modules of tools are imported once per process: a change in
    one of these counts after a restart, as one of ``[service]`` does.

    Args:
        path, env: as for ``ServiceSettings.load``. The file is the same one later, wherever the process has moved to.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong.
    """

    def __init__(self, path: str | Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self._env = env
        chosen = path or (os.environ if env is None else env).get("CELLBLOCK_CONFIG")
        self._file = Path(chosen or "cellblock.toml").absolute()
        self._lock = threading.Lock()
        self._seen = self._content()
        if chosen or self._seen is not None:
            self._settings = ServiceSettings.load(self._file, env)
        else:
            found, problems = read(None, env)
            if problems:
                raise ConfigError("\n".join(problems))
            self._settings = found

    def current(self) -> ServiceSettings:
        """The settings. Reads a small file, each time: its times would not tell of two changes in a moment."""
        with self._lock:
            content = self._content()
            if content != self._seen:
                self._seen = content
                self._read_again()
            return self._settings

    def _content(self) -> bytes | None:
        try:
            return self._file.read_bytes()
        except OSError:
            return None

    def _read_again(self) -> None:
        found, problems = read(self._file, self._env)
        if problems:
            _log.warning("the settings stay as they were, as %s is wrong: %s", self._file, "; ".join(problems))
            return
        if found.service != self._settings.service:
            _log.warning("[service] has changed in %s, which counts after a restart", self._file)
        _log.info("the settings were read again from %s", self._file)
        self._settings = found
