"""What this process is, by OpenTelemetry's resource conventions."""

from __future__ import annotations

import os
import platform
import uuid
from importlib import metadata
from typing import TYPE_CHECKING, Any

from insitu.core import values
from insitu.core.records import Resource

if TYPE_CHECKING:
    from insitu.config import Options


def resource(options: Options) -> Resource:
    """Return what this process is, by OpenTelemetry's resource conventions."""
    service = options.service
    attributes: dict[str, Any] = {
        "telemetry.sdk.name": "insitu",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": _version(),
        "process.pid": os.getpid(),
        "process.runtime.name": platform.python_implementation().lower(),
        "process.runtime.version": platform.python_version(),
        "host.name": platform.node(),
        "service.instance.id": str(uuid.uuid4()),
        **{values.text(key): values.text(value) for key, value in service.attributes.items()},
        "service.name": service.name,
    }
    if service.version:
        attributes["service.version"] = service.version
    if service.environment:
        attributes["deployment.environment.name"] = service.environment
    return Resource(attributes)


def _version() -> str:
    try:
        return metadata.version("insitu")
    except metadata.PackageNotFoundError:
        return "0"
