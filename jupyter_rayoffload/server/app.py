"""The extension as Jupyter Server loads it: settings, handlers, events, and its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_server.extension.application import ExtensionApp

from ..config import RayOffload
from .dashboard import DashboardHandler, SlashHandler
from .handlers import handlers
from .watch import Watch

if TYPE_CHECKING:
    from .service import Service

__all__ = ["RayOffloadApp"]


class RayOffloadApp(ExtensionApp):
    """Clusters and jobs of the person whom this server serves.

    Settings are those of :class:`.config.RayOffload`, here as in a kernel.
    """

    name = "jupyter_rayoffload"
    load_other_extensions = True
    classes = [*ExtensionApp.classes, RayOffload]  # noqa: RUF012 - as traitlets has it
    _service: Service | None = None
    _watch: Watch | None = None

    @property
    def service(self) -> Service:
        """What does the work; made at first use, for it loads redis and aiohttp.

        Raises
        ------
        OffloadError
            The settings cannot be used.
        """
        if self._service is None:
            self._service = self.make_service()
        return self._service

    def make_service(self) -> Service:
        """Make it from the settings."""
        from ..submission import Offloader
        from .service import Service

        return Service(Offloader(RayOffload.load(parent=self, through_server=False)))

    def initialize_settings(self) -> None:
        """Register the events."""
        assert self.serverapp is not None
        logger = self.serverapp.event_logger
        assert logger is not None
        for file in sorted(Path(__file__).with_name("events").glob("*.yaml")):
            logger.register_event_schema(file)

    def initialize_handlers(self) -> None:
        """Add the routes."""
        self.handlers.extend(handlers())
        self.handlers.append((r"rayoffload/dashboard/(?P<name>[^/]+)", SlashHandler))
        self.handlers.append((r"rayoffload/dashboard/(?P<name>[^/]+)/(?P<rest>.*)", DashboardHandler))

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Begin to watch: called when the server's loop runs."""
        self._watch = Watch(lambda: self.service, serverapp.event_logger)
        self._watch.start()

    async def stop_extension(self) -> None:
        """Stop watching and close all connections; clusters and jobs go on."""
        if self._watch is not None:
            await self._watch.stop()
        if self._service is not None:
            await self._service.aclose()
