"""The style of the page: light, dark, narrow and printed."""

from typing import Final

_LIGHT: Final = """
  --bg: #fff; --card: #f5f7f9; --ink: #1c2128; --faint: #57606a; --line: #d4dae0;
  --good: #93bab4; --bad: #c23616; --closed: #17776b; --open: #50439b; --probing: #e09a2b;
  --pick: #0a57a8; --pick-bg: #e9f2fc; --keep: #17776b; --keep-bg: #e6f4f1;
"""
_DARK: Final = """
  --bg: #0f1318; --card: #171d24; --ink: #e6ebf0; --faint: #98a2ad; --line: #3b434c;
  --good: #3c6a64; --bad: #f2704a; --closed: #3fb8a8; --open: #a598f2; --probing: #e5b54a;
  --pick: #70b3ff; --pick-bg: #13233a; --keep: #3fb8a8; --keep-bg: #10292a;
"""
_PAGE: Final = """
* { box-sizing: border-box }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 26px 20px 60px }
p { margin: 0 0 8px }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 6px; text-wrap: balance }
h2 { font-size: 18px; margin: 34px 0 2px }
h3 { font-size: 15px; margin: 18px 0 2px }
h2 + p, .about, small { color: var(--faint) }
ul { padding-left: 20px }
li { margin: 4px 0 }
.failed { color: var(--bad) }

.verdict { display: grid; grid-template-columns: 1fr minmax(250px, auto); gap: 26px; padding: 20px 22px;
  background: var(--pick-bg); border-left: 6px solid var(--pick); border-radius: 6px }
.keep { background: var(--keep-bg); border-color: var(--keep) }
.six { display: grid; grid-template-columns: repeat(3, 1fr); gap: 14px 24px; margin: 18px 0 0; padding: 0;
  list-style: none }
.six li { margin: 0 }
.six b { display: block; font-size: 24px; line-height: 1.2; font-variant-numeric: tabular-nums }
.six span, .code p { display: block; color: var(--faint); font-size: 13px; line-height: 1.35 }
.code p { margin-top: 10px; max-width: 270px }
pre { margin: 0; padding: 12px 14px; overflow-x: auto; background: var(--bg); border: 1px solid var(--line);
  border-radius: 6px; font: 13px/1.5 ui-monospace, monospace }
.warning { margin: 12px 0; padding: 6px 14px; background: var(--card); border-left: 4px solid var(--probing);
  white-space: pre-line; overflow-wrap: anywhere }

figure { margin: 8px 0 0; overflow-x: auto }
svg { display: block; width: 100%; height: auto; min-width: 680px }
.key { display: inline-block; margin-left: 18px; white-space: nowrap }
.key svg { display: inline-block; width: 22px; min-width: 0; height: 14px; margin-right: 6px; vertical-align: -2px }
text { font: 12px system-ui, sans-serif; fill: var(--ink) }
.f { fill: var(--faint) }
.b { font-weight: 650 }
.p { fill: var(--pick); font-weight: 650 }
.num { fill: var(--bg); font-weight: 700; font-size: 11px }
.dot { fill: var(--bad) }
.axis { stroke: var(--faint) }
.grid { stroke: var(--line); stroke-dasharray: 1 4 }
.good { fill: var(--good) }
.bad { fill: var(--bad) }
.out { fill: var(--bad); opacity: .12 }
.hole { fill: var(--probing); opacity: .35 }
.s-closed { fill: var(--closed) }
.s-open { fill: var(--open) }
.s-probing { fill: var(--probing) }
.scale { fill: none; stroke: var(--line) }
.calm { fill: var(--good) }
.pick { stroke: var(--pick); stroke-width: 3 }
.shade { fill: var(--card) }
.picked { fill: none; stroke: var(--pick); stroke-width: 3 }
.other { fill: none; stroke: var(--faint); stroke-width: 1.4 }
.lead { stroke: var(--line) }

.wide { overflow-x: auto }
table { width: 100%; border-collapse: collapse; font-size: 14px }
th, td { padding: 8px 9px; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums }
thead th { font-weight: 500; font-size: 13px; line-height: 1.3; vertical-align: bottom; color: var(--faint) }
th:first-child { text-align: left; min-width: 200px }
td { white-space: nowrap }
small { display: block; font-size: 12px; font-weight: 400; line-height: 1.35 }
tbody tr.best th, tbody tr.best td { background: var(--pick-bg); font-weight: 650 }

@media (max-width: 760px) {
  .verdict { grid-template-columns: 1fr }
  .six { grid-template-columns: repeat(2, 1fr) }
  h1 { font-size: 22px }
  main { padding: 18px 14px 40px }
}
"""
_PRINT: Final = """
  body { font-size: 10.5pt }
  main { max-width: none; padding: 0 }
  figure, tr, .verdict { break-inside: avoid }
  h2, h2 + p { break-after: avoid }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  svg { min-width: 0 }
  table { font-size: 8.5pt }
  th, td { padding: 4px }
  th:first-child { min-width: 110px }
"""
CSS: Final = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
{_PAGE}
@media print {{ :root {{ color-scheme: light; {_LIGHT} }} {_PRINT} }}
"""
