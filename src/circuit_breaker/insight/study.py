"""All findings about a log: its outages, and what each setting would have done. Every report shows just these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from .._breaker.config import CircuitBreakerConfig
from .calls import Log
from .figures import Figures, Scene, Setting
from .made import SHARES, Made, make
from .outages import NoBadCallError, NoOrdinaryTimesError, Ordinary, Outage, find, given
from .reading.problems import LogError
from .recommend import POINT, Advice, Adviser, Peaks

ANSWERS: Final = (0.10, 0.25, 0.50)
DEFAULTS: Final = "the defaults"
YOURS: Final = "your settings"


@dataclass(frozen=True)
class Question:
    """What is asked about a log.

    Attributes:
        refuse_from: the failing share from which on to reject every call.
        yours: the settings that are in use, None: the defaults.
        slow_s: seconds from which a call is as bad as a failure; None: no call is.
        ordinary: the share of calls that goes wrong in ordinary times; None: it is found out.
        outages: wall-clock times of outages; none: they are found out.
    """

    refuse_from: float = 0.5
    yours: CircuitBreakerConfig | None = None
    slow_s: float | None = None
    ordinary: float | None = None
    outages: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Row:
    """One setting, and what was found out about it.

    Attributes:
        figures: what it would have done with the log.
        loss: what its outages, and made ones, cost with it, as a part of what they cost without a breaker.
        advice: how it was derived; None: it was given.
        opens_after_s: for each of `made.SHARES` the median seconds until it opens; infinite if it mostly does not.
    """

    figures: Figures
    loss: float
    advice: Advice | None
    opens_after_s: list[float]

    @property
    def name(self) -> str:
        """What the setting is called."""
        return self.figures.setting.name

    @property
    def config(self) -> CircuitBreakerConfig:
        """The setting."""
        return self.figures.setting.config


@dataclass(frozen=True)
class Findings:
    """Everything that was found out.

    Attributes:
        log: what it was found out about.
        question: what was asked.
        ordinary: what ordinary times are like.
        outages: in the order of time.
        worth: for each outage, whether opening for it pays.
        rows: the settings: yours if any, the defaults, then those for several answers, the lowest first.
        advised: the row of the settings derived for the answer that was given.
        kept: the row of settings in use that are as good; None: there are none.
        peaks: how close ordinary times and outages come to the thresholds of the settings to use.
        stuck_before: the most callers that were inside bad calls at the same time.
        made: how many outages were made for each share, and how long each lasted.
    """

    log: Log
    question: Question
    ordinary: Ordinary
    outages: list[Outage]
    worth: list[bool]
    rows: list[Row]
    advised: Row
    kept: Row | None
    peaks: Peaks
    stuck_before: int
    made: tuple[int, float]

    @property
    def picked(self) -> Row:
        """The row of the settings to use."""
        return self.kept or self.advised

    @property
    def current(self) -> Row:
        """The row of the settings in use."""
        return self.rows[0]

    def share(self, one: Outage) -> float:
        """Return the share of bad calls in an outage."""
        return share(one, self.question.slow_s)


def share(one: Outage, slow_s: float | None) -> float:
    """Return the share of bad calls in an outage: those that failed and, if asked for, those that were slow."""
    return one.failing_share + (0.0 if slow_s is None else one.slow_share)


def study(log: Log, question: Question, progress: Callable[[str, float | None], object]) -> Findings:
    """Find everything out.

    Raises:
        LogError: the log has no ordinary times, or an outage that was named has no bad call.
    """
    progress("looking for outages", None)
    ordinary, outages = _outages(log, question)
    worth = [share(one, question.slow_s) >= question.refuse_from for one in outages]
    scene = Scene(log.circuits, outages, worth, question.slow_s)
    made = make(log, outages)
    adviser = Adviser(scene, made, question.slow_s)
    answers = sorted({*ANSWERS, question.refuse_from})

    def row(step: int, setting: Setting, advice: Advice | None = None) -> Row:
        progress("replaying", step / (len(answers) + 2))
        loss = adviser.loss(setting.config, question.refuse_from)
        return Row(scene.figures(setting), loss, advice, _opens_after(made, setting.config))

    rows = [row(0, Setting(DEFAULTS, CircuitBreakerConfig()))]
    if question.yours is not None and question.yours != rows[0].config:
        rows.insert(0, row(1, Setting(YOURS, question.yours)))
    in_use = rows[:]
    for step, answer in enumerate(answers, 2):
        advice = adviser.advise(answer)
        rows.append(row(step, Setting(f"refuse from {answer * 100:.4g}%", advice.config), advice))
    advised = rows[len(in_use) + answers.index(question.refuse_from)]
    kept = [one for one in in_use if one.figures.passed and one.loss <= advised.loss + POINT]
    return Findings(
        log=log,
        question=question,
        ordinary=ordinary,
        outages=outages,
        worth=worth,
        rows=rows,
        advised=advised,
        kept=kept[0] if kept else None,
        peaks=adviser.peaks((kept or [advised])[0].config),
        stuck_before=scene.stuck_without_a_breaker(),
        made=(len(made) // len(SHARES), made[0].outage.end - made[0].outage.begin if made else 0.0),
    )


def _outages(log: Log, question: Question) -> tuple[Ordinary, list[Outage]]:
    try:
        if not question.outages:
            return find(log.calls, question.slow_s, question.ordinary)
        times = [(begin - log.start, end - log.start) for begin, end in question.outages]
        return given(log.calls, times, question.slow_s)
    except NoOrdinaryTimesError as error:
        raise LogError(
            f"{error.share:.0%} of the calls failed, so nothing tells an outage from ordinary times: say with "
            f"--ordinary which share fails when all is well, as --ordinary 1%"
        ) from error
    except NoBadCallError as error:
        raise LogError(f"no call failed in the outage number {error.number + 1} of those given") from error


def _opens_after(made: Sequence[Made], config: CircuitBreakerConfig) -> list[float]:
    seconds: dict[float, list[float]] = {}
    for one in made:
        seconds.setdefault(one.share, []).append(one.opened_after(config))
    return [median(seconds[share]) for share in seconds]
