"""What can go wrong with the lease. Standard library only.

Each error has a code, which is how it crosses the socket: the keeper sends code and
message, and the client raises the same class again.
"""

from __future__ import annotations

from governor.errors import DeviceError, InputError


class LeaseError(DeviceError):
    """The lease could not be had, kept or used."""

    code = "lease"


class LeaseHeldError(LeaseError):
    """Someone else holds the lease; the message names its process."""

    code = "held"


class LeaseLostError(LeaseError):
    """The keeper is gone."""

    code = "lost"


class LeaseEndedError(LeaseLostError):
    """The keeper was told to stop; it ended the lease and puts everything back."""

    code = "ended"


class HardwareError(LeaseError):
    """The kernel refused to read or write a knob."""

    code = "hardware"


class HardwareBusyError(HardwareError):
    """The kernel has not come back from a read or write in time."""

    code = "busy"


class RestoreError(LeaseError):
    """Something could not be put back; the message names knob and file."""

    code = "restore"


class JournalDamagedError(RestoreError):
    """A journal that cannot be read."""

    code = "journal"


class RefusedError(LeaseError, InputError):
    """A knob or a level that there is not. Nothing was written."""

    code = "refused"


class ProtocolError(LeaseError):
    """Bytes that are not a message of this protocol and version."""

    code = "protocol"


ERRORS: dict[str, type[LeaseError]] = {
    error.code: error
    for error in (
        LeaseError,
        LeaseHeldError,
        LeaseLostError,
        LeaseEndedError,
        HardwareError,
        HardwareBusyError,
        RestoreError,
        JournalDamagedError,
        RefusedError,
        ProtocolError,
    )
}
