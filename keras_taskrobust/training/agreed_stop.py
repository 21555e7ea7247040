"""A signal to stop that comes to several processes, which stop at the same step."""

import json
import time

from keras_taskrobust.interruption import is_asked_to_stop
from keras_taskrobust.training.backends import launcher

#: Seconds between two agreements, and the most steps.
_PERIOD = 1.0
_MOST_STEPS = 1000


class AgreedStop:
    """Whether any process is asked to stop, which all find at the same step.

    They agree about once a second, or at each step if those take longer. A process that trains by
    itself looks at every step.
    """

    def __init__(self):
        self._asked = False
        self._steps, self._every = 0, 1
        self._since = time.perf_counter()

    def after_batch(self) -> bool:
        """To be asked once after each batch."""
        if launcher.count() == 1:
            return is_asked_to_stop()
        self._steps += 1
        if self._steps >= self._every:
            self._agree()
        return self._asked

    def after_epoch(self) -> bool:
        """To be asked once after the last batch of an epoch."""
        return is_asked_to_stop() if launcher.count() == 1 else self._asked

    def _agree(self):
        seconds = (time.perf_counter() - self._since) / self._steps
        payload = json.dumps([is_asked_to_stop(), seconds]).encode()
        asked, each = zip(*map(json.loads, launcher.gather(payload)), strict=True)
        self._asked = any(asked)
        self._steps, self._every = 0, int(min(max(_PERIOD / max(each), 1.0), _MOST_STEPS))
        self._since = time.perf_counter()
