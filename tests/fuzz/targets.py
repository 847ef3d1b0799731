"""Every decoder of the product as a target: valid inputs to begin with, the check, the errors that it documents.

A new decoder gets its line in one of these modules, and its folder in ``corpus`` when it first fails.
"""

from __future__ import annotations

from typing import Final

import batch_targets
import peer_targets
import settings_targets
import store_targets
import wire_targets

_MODULES: Final = (wire_targets, peer_targets, batch_targets, store_targets, settings_targets)
TARGETS: Final = {target.name: target for module in _MODULES for target in module.TARGETS}
