"""The report as one page: no script, no font and no picture from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Final

from ..study import Findings
from . import more_charts, pictures, verdict, wording
from .charts import Charts
from .style import CSS
from .wording import number

TITLE_SHOWN: Final = 80
STATES: Final = (
    ("s-closed", "M0 5.5h22v3h-22z", "closed"),
    ("s-open", "M0 0h22v14h-22z", "open: rejects every call"),
    ("s-probing", "M0 3h22v8h-22z", "probing: lets a few through"),
)
KEY: Final = "".join(
    f'<span class="key"><svg viewBox="0 0 22 14"><path class="{css}" d="{path}"/></svg>{words}</span>'
    for css, path, words in STATES
)


def page(findings: Findings) -> str:
    """Return the report as HTML that is also XML."""
    title = findings.log.title
    title = title if len(title) <= TITLE_SHOWN else f"{title[:TITLE_SHOWN]}..."
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>',
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
            f"<title>{escape(title)}: settings for a circuit breaker</title><style>{CSS}</style></head><body><main>",
            f'<p class="about">{escape(verdict.about(findings, title))}</p>',
            _verdict(findings),
            *(f'<p class="warning">{_prose(text)}</p>' for text in verdict.warnings(findings)),
            *_log(findings),
            *_explanations(findings),
            *_table(findings),
            "<h2>What a replay cannot know</h2><ul>",
            *(f"<li>{_prose(text)}</li>" for text in verdict.UNKNOWN),
            "</ul></main></body></html>\n",
        ]
    )


def _prose(text: str) -> str:
    """Return text for the page; what stands between backticks is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _verdict(findings: Findings) -> str:
    figures = "".join(
        f"<li><b>{escape(figure.value)}</b><span>{escape(figure.label)}</span></li>" for figure in verdict.six(findings)
    )
    code = escape("\n".join(wording.code(findings.picked.config)))
    answer = wording.exact_share(findings.question.refuse_from)
    css = "verdict" if findings.kept is None else "verdict keep"
    return (
        f'<section class="{css}"><div><h1>{escape(verdict.headline(findings))}</h1>'
        f'<p>{escape(verdict.reason(findings))}</p><ul class="six">{figures}</ul></div>'
        f'<div class="code"><pre>{code}</pre><p>Your answer: reject everybody once {answer} or more of the calls fail '
        f"(<code>--refuse-from {answer}</code>).</p></div></section>"
    )


def _log(findings: Findings) -> Iterator[str]:
    charts = Charts(findings)
    yield '<h2>The log</h2><p>Calls that <b class="failed">failed</b> at the bottom, calls that went well on top of '
    yield "them. Numbers mark outages. All times are UTC.</p>"
    yield f"<figure>{charts.whole_log()}</figure>"
    shown = pictures.close_ups(findings)
    if not shown:
        return
    yield "<h2>The outages close up</h2><p>What each setting would have done."
    if len(shown) < len(findings.outages):
        yield f" Shown are {len(shown)} of {len(findings.outages)}, those with the most bad calls."
    yield f"{KEY}</p>"
    for outage in shown:
        yield f"<figure>{charts.close_up(outage)}</figure>"


def _explanations(findings: Findings) -> Iterator[str]:
    yield "<h2>Room between ordinary times and the thresholds</h2><p>How high the figures of each rule came in "
    yield "ordinary times (the shorter the bar, the safer from false alarms), and in the numbered outages.</p>"
    yield f"<figure>{more_charts.room(findings)}</figure>"
    moments, lasts_s = findings.made
    if not moments:
        return
    yield "<h2>How soon it opens</h2><p>Failures were put into your own ordinary traffic at "
    yield f"{number(moments, 'moment')}, for {wording.seconds(lasts_s)} each. Shown is the median.</p>"
    yield f"<figure>{more_charts.soon(findings)}</figure>"


def _table(findings: Findings) -> Iterator[str]:
    yield '<h2>All figures</h2><div class="wide"><table><thead><tr><th scope="col">setting</th>'
    yield from (f'<th scope="col">{escape(head)}</th>' for head in verdict.heads(findings))
    yield "</tr></thead><tbody>"
    for row in findings.rows:
        css = ' class="best"' if row is findings.picked else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in verdict.cells(row))
        short = escape(wording.in_short(row.config))
        yield f'<tr{css}><th scope="row">{escape(row.name)}<small>{short}</small></th>{cells}</tr>'
    yield "</tbody></table></div>"
    alarms = list(verdict.false_alarms(findings))
    if alarms:
        yield "<h3>False alarms</h3><ul>"
        yield from (f"<li>{escape(alarm)}</li>" for alarm in alarms)
        yield "</ul>"
