"""What earlier runs have learnt, for a governor: it is told of it, and adds to it.

The store is read while the baseline is measured, and written when a point is held, by a thread of
its own: nobody waits for a disk or a server. What fails is said once, and done without.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from governor.devices.device import DeviceInfo
from governor.errors import GovernorError
from governor.known import contradicts
from governor.phases import PastPhase
from governor.profile import (
    EMULATED,
    MOST_TRIALS,
    Coefficient,
    Entry,
    Profile,
    ProfileKey,
    StoredObjective,
    StoredTrial,
    about,
    fingerprint_of,
)
from governor.roofline.fit import PARAMETERS
from governor.roofline.learnt import fitted
from governor.roofline.work import Work
from governor.slo import LatencySLO
from governor.space import Space
from governor.store import PATIENCE_S, ProfileStore
from governor.trial import Trial
from governor.units import format_duration, format_energy
from policies.background import Background, Donor
from policies.policy import PolicyFactory

logger = logging.getLogger("governor")


def key_of(
    info: DeviceInfo,
    space: Space,
    slo: LatencySLO,
    workload: str,
    work: Work | None,
) -> ProfileKey:
    """Of a run; its workload is empty where nobody has named it.

    Args:
        workload: what the user calls it.
        work: what an inference is counted to do.
    """
    return ProfileKey(
        board=f"{EMULATED}{info.name}" if info.emulated else info.name,
        jetpack=info.facts.get("JetPack", ""),
        power_mode=info.facts.get("power mode", ""),
        space=fingerprint_of(space),
        workload=workload or (_counted(work) if work is not None else info.workload),
        slo=str(slo),
    )


def _counted(work: Work) -> str:
    """A model by its name, and by what it does: another input size is another workload."""
    figures = f"{work.flop:.4g} FLOP, {work.bytes:.4g} B, {work.precision}"
    return f"{work.name} ({figures})".replace("@", " at ")[:200]


class Experience:
    """Between one run and the store.

    Attributes:
        errors: times the store failed.
    """

    def __init__(
        self, store: ProfileStore, key: ProfileKey, space: Space, *, in_thread: bool, owned: bool
    ) -> None:
        """
        Args:
            key: of this run as it starts; its workload is empty where nobody has named it.
            in_thread: False in virtual time, where each step waits for the one before.
            owned: whether the store is to be closed at the end.
        """
        self.errors = 0
        self._store = store
        self._key = key
        self._space = space
        self._owned = owned
        self._entries: list[Entry] = []
        self._read: list[Entry] = []
        self._disowned: Sequence[PastPhase] = ()
        self._latest: PastPhase | None = None
        self._first: Trial | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if in_thread:
            self._thread = threading.Thread(
                target=self._work, name="governor profiles", daemon=True
            )

    def informing(self, policy_for: PolicyFactory) -> PolicyFactory:
        """The same policy, told of other workloads and boards as far as the store was read."""
        return lambda problem: policy_for(replace(problem, background=self.background))

    @property
    def background(self) -> Background | None:
        """What is known of other workloads and boards; None: nothing, or not yet.

        Where a profile of a workload was contradicted, none of that workload teaches anything.
        """
        disowned = {_pair(one.key) for one in self._read if _past(one) in self._disowned}
        donors = _donors([one for one in self._read if _pair(one.key) not in disowned])
        return Background(*_pair(self._key), donors) if donors else None

    def begin(
        self, tell: Callable[[list[PastPhase]], None], disowned: Sequence[PastPhase] = ()
    ) -> None:
        """Read the store, and ``tell`` what it knows of this very workload: the likest last.

        ``disowned``: what of that was contradicted, as it becomes known.
        """
        if self._thread is not None:
            self._thread.start()
        self.move(self._key, self._space, tell, disowned)

    def move(
        self,
        key: ProfileKey,
        space: Space,
        tell: Callable[[list[PastPhase]], None],
        disowned: Sequence[PastPhase] = (),
    ) -> None:
        """Other settings from now on, which have profiles of their own; else as :meth:`begin`."""
        self._key, self._space, self._disowned = key, space, disowned
        self._latest = self._first = None
        self._entries, self._read = [], []
        self._do(lambda: self._load(key, tell))

    def keep(self, found: PastPhase | None, slo: str) -> None:
        """A search came to an end; what it found is new, or is what was known before.

        ``slo``: that it was for, which may have changed since the start.
        """
        if found is None or found == self._latest:
            return
        latest = {trial.point: trial for trial in (*found.trials, found.chosen)}
        stored = [StoredTrial.of(trial) for trial in latest.values()]
        if stored[0] is None or StoredTrial.of(found.chosen) is None:
            return
        self._latest = found
        others = [one for one in stored[1:] if one is not None]
        profile = Profile(
            levels={knob.name: list(knob.levels) for knob in self._space.knobs},
            trials=[stored[0], *others[-MOST_TRIALS + 1 :]],
            chosen=dict(found.chosen.point or {}),
            slo_s=found.slo_s,
            objective=StoredObjective.of(found.objective),
        )
        workload = self._workload_of(found.anchor)
        key = replace(self._key, workload=workload, slo=slo, objective=about(found.objective))
        entry = Entry(key, profile)
        self._entries = [entry, *(each for each in self._entries if each.key != entry.key)]
        space = self._space
        self._do(lambda: self._save(*entry, space))

    def close(self) -> None:
        """Wait until everything is kept, but not for a server that hangs."""
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join(PATIENCE_S)
        elif self._owned:
            self._store.close()

    # In the thread -----------------------------------------------------------------------

    def _do(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._try(job)
        else:
            self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._try(job)
        if self._owned:
            self._store.close()

    def _try(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # the application must not fall over its governor's memory
            self.errors += 1
            if self.errors == 1:
                known = isinstance(error, GovernorError)
                logger.warning("%s; governing goes on without it", error, exc_info=not known)

    def _load(self, key: ProfileKey, tell: Callable[[list[PastPhase]], None]) -> None:
        own = self._store.lookup(key) if key.workload else None
        alike = self._store.similar(key)
        if key != self._key:
            return  # they are other settings already
        self._read = self._entries = ([] if own is None else [Entry(key, own)]) + alike
        phases = [past for entry in self._entries if self._same(entry) and (past := _past(entry))]
        tell(phases[::-1])

    def _save(self, key: ProfileKey, profile: Profile, space: Space) -> None:
        fit = fitted(space, [one.trial for one in profile.trials])
        if fit is not None:
            named = zip(PARAMETERS, fit.mean.tolist(), fit.sd.tolist(), strict=True)
            coefficients = {name: Coefficient(mean=mean, sd=sd) for name, mean, sd in named}
            profile = replace(profile, coefficients=coefficients)
        self._store.save(key, profile)

    # Whose it is -------------------------------------------------------------------------

    def _same(self, entry: Entry) -> bool:
        """Whether it may be this workload's: its first trial will tell."""
        key, ours = entry.key, self._key
        percentile, ours_too = (each.slo.partition(" ")[0] for each in (key, ours))
        of_ours = not ours.workload or _name(key.workload) == _name(ours.workload)
        like_ours = (
            replace(key, workload=ours.workload, slo=ours.slo, objective=ours.objective) == ours
        )
        return of_ours and like_ours and percentile == ours_too

    def _workload_of(self, anchor: Trial) -> str:
        """Of one that has a name, that; else of what the fastest point gave.

        A workload that changes during the run is another one from then on.
        """
        if self._first is None:
            self._first = anchor
        if self._key.workload and _alike(anchor, self._first):
            return self._key.workload
        for entry in self._entries:
            if self._same(entry) and _alike(anchor, entry.profile.trials[0].trial):
                return entry.key.workload
        seen = f"{format_duration(anchor.mean_latency_s)}, {format_energy(anchor.energy_j)}"
        return f"{_name(self._key.workload)} @ {seen}".strip()


def _alike(now: Trial, before: Trial) -> bool:
    return now.point == before.point and not contradicts(now, before)


def _name(workload: str) -> str:
    """Without what was seen of it."""
    return workload.partition("@")[0].strip()


def _past(entry: Entry) -> PastPhase | None:
    profile = entry.profile
    chosen = profile.chosen_trial
    if chosen is None:
        return None
    trials = tuple(one.trial for one in profile.trials)
    return PastPhase(profile.slo_s, trials, chosen.trial, profile.objective.objective)


def _pair(key: ProfileKey) -> tuple[str, str]:
    return key.board, key.workload


def _donors(entries: Sequence[Entry]) -> tuple[Donor, ...]:
    """What searches for other bounds or objectives have taken over from each other counts once."""
    told: set[Trial] = set()
    donors: list[Donor] = []
    for key, profile in entries:
        anchor, *others = (one.trial for one in profile.trials)
        donors.append(Donor(*_pair(key), (anchor, *(one for one in others if one not in told))))
        told.update(others)
    return tuple(donors)
