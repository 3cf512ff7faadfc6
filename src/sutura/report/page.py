"""One HTML page of evidence: no script, nothing loaded from elsewhere, light and dark, phone and paper."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, StrictUndefined

from sutura.report.figures import figures, sizes
from sutura.report.summary import summary

VERDICTS = {
    "certified": ("good", "An independent program re-proved it from the files beside this page."),
    "proved": ("good", "Proved of the network that ships."),
    "violated": ("bad", "An input that breaks it was run in ONNX Runtime."),
    "unknown": ("open", "Neither proved nor refuted."),
    "not asked": ("open", "No stage asked this of the network that ships."),
}
"""Verdict -> its colour and what it means."""


def page(report: dict[str, Any]) -> str:
    """The page of a report of `sutura ship`; every text of a user's file is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    stages = [
        {
            **stage,
            "lines": summary(stage["run"], stage["document"]),
            "figures": figures(stage["run"], stage["document"]),
        }
        for stage in report["stages"]
    ]
    said = [known["verdict"] for known in report["properties"]]
    counts = {verdict: said.count(verdict) for verdict in VERDICTS if verdict in said}
    rests = list(dict.fromkeys(word for known in report["properties"] for word in known["assumptions"]))
    return environment.from_string(TEMPLATE).render(
        report=report,
        stages=stages,
        verdicts=VERDICTS,
        counts=counts,
        rests=rests,
        sizes=sizes(report["sizes"]),
        checked=checked(report),
        folded=len(said) > FOLDED,
    )


def checked(report: dict[str, Any]) -> str:
    """The command that checks the certificate; it must name the properties in their order."""
    names = [str(known["property"]) for known in report["properties"]]
    pattern = len(names) > 1 and names == sorted(names) and all(n.endswith(".vnnlib") for n in names)
    places = ["properties/*.vnnlib"] if pattern else [f"properties/{name}" for name in names]
    return " ".join(["sutura check model.onnx", *places, "certificate.json"])


FOLDED = 12
"""More properties than these are shown as counts, and one by one only when opened."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.name }}: evidence</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --line: #d0d7de;
  --good: #1a7f37; --bad: #c1121f; --open: #8a5a00; --c1: #2563a8; --c2: #c2560c; --c3: #8b949e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b1; --paper: #0d1117;
  --line: #30363d; --good: #3fb950; --bad: #ff7b72; --open: #d29922; --c1: #6cb0f0; --c2: #f0883e;
  --c3: #768390; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 56rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; } a { color: var(--c1); }
.soft, summary, figcaption { color: var(--soft); } nav { margin: 1rem 0; } nav a { margin-right: .9rem; }
table { border-collapse: collapse; width: 100%; } td, th { border-bottom: 1px solid var(--line);
  padding: .35rem .8rem .35rem 0; text-align: left; vertical-align: top; }
table.figures { table-layout: fixed; } table.figures td.soft { width: 42%; }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--open); }
strong.good, strong.bad, strong.open { text-transform: capitalize; }
figure { margin: .6rem 0; } svg { display: block; width: 100%; max-width: 34rem; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); } polyline { fill: none; }
.l1 { stroke: var(--c1); stroke-width: 2; } .l2 { stroke: var(--c2); stroke-width: 2; }
.l3 { stroke: var(--c3); stroke-width: 2; } .axis { stroke: var(--soft); }
.guide { stroke: var(--soft); stroke-dasharray: 4 4; }
figure img { display: block; width: 100%; background: #fff; border-radius: 4px; }
.wide { overflow-x: auto; } .wide img { min-width: 40rem; }
pre { white-space: pre-wrap; background: color-mix(in srgb, var(--ink) 7%, var(--paper)); padding: .6rem;
  border-radius: 4px; font-size: .85rem; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --line: #bbb;
  --good: #1a7f37; --bad: #c1121f; --open: #8a5a00; --c1: #2563a8; --c2: #c2560c; --c3: #8b949e; }
  details.data, nav { display: none; } body { max-width: none; } .wide img { min-width: 0; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
</style>
</head>
<body>
<header>
<h1>{{ report.name }}</h1>
<p class="soft">What is known of <code>model.onnx</code>, and how it was made of
<code>{{ report.original.name }}</code>, by sutura {{ report.sutura }}.
SHA-256 of the network: <code>{{ report.network.sha256 }}</code></p>
<nav aria-label="On this page"><a href="#verdicts">Verdicts</a> <a href="#sizes">Size</a>
{% for stage in stages %}<a href="#stage-{{ loop.index }}">{{ stage.run }}</a> {% endfor %}
<a href="#check">Check it</a></nav>
</header>
<main>
<section id="verdicts"><h2>Properties of the network that ships</h2>
{% if not report.properties %}<p>The recipe names no property.</p>{% endif %}
{% for verdict, count in counts.items() %}
<p><strong class="{{ verdicts[verdict][0] }}">{{ verdict }}</strong>: {{ count }} of
{{ report.properties | length }}. {{ verdicts[verdict][1] }}</p>
{% endfor %}
{% if folded %}<details><summary>All {{ report.properties | length }} properties, one by one</summary>
{% endif %}
{% if report.properties %}
<table><tr><th>property</th><th>verdict</th><th>claim</th></tr>
{% for known in report.properties %}
<tr><td><code>{{ known.property }}</code></td>
<td class="{{ verdicts[known.verdict][0] }}">{{ known.verdict }}</td><td>{{ known.level }}
{% if known.carried | default(false) %} carried over: proved of the original, and both decide alike.
{% elif known.earlier %} It was proved {{ known.earlier }} of another network, which says nothing of this one.
{% endif %}</td></tr>
{% endfor %}</table>
{% endif %}
{% if folded %}</details>{% endif %}
{% if rests %}<details open><summary>What these claims rest on</summary><ul>
{% for word in rests %}<li>{{ word }}</li>{% endfor %}
</ul></details>{% endif %}
</section>
<section id="sizes"><h2>Size after each stage</h2><figure>{{ sizes }}</figure></section>
{% for stage in stages %}
<section id="stage-{{ loop.index }}"><h2>{{ loop.index }}. {{ stage.run }}</h2>
{% if stage.lines | length > 24 %}<details><summary>{{ stage.lines | length }} figures</summary>{% endif %}
<table class="figures">{% for what, figure in stage.lines %}
<tr><td class="soft">{{ what }}</td><td>{{ figure }}</td></tr>
{% endfor %}</table>
{% if stage.lines | length > 24 %}</details>{% endif %}
{% for known in stage.carried | default([]) %}
<p><code>{{ known.property }}</code>: proved of the original; a diff stage proved that both decide alike on
its boxes, and it rests on the decision alone. The proof carries over; it was not asked again.</p>
{% endfor %}
{% for heading, chart in stage.figures %}
<h3>{{ heading }}</h3>
<figure>{{ chart }}</figure>
{% endfor %}
{% if stage.picture %}
<figure{% if stage.run in ("repair", "evaluate") %} class="wide"{% endif %}>
<img alt="picture of stage {{ stage.run }}"
src="data:image/png;base64,{{ stage.picture }}"></figure>
{% elif stage.undrawn | default(false) %}<p class="soft">A picture was asked for, and matplotlib is not
installed: pip install 'sutura[plot]', and run the recipe again.</p>
{% endif %}
<details class="data"><summary>Options and the whole result</summary>
<pre>{{ stage.options | tojson(indent=1) }}</pre><pre>{{ stage.document | tojson(indent=1) }}</pre></details>
</section>
{% endfor %}
<section id="check"><h2>Check it yourself</h2>
{% if report.certificate %}
<p>The checker is a small program of its own; it needs the files of this folder and nothing else.</p>
<pre>{{ checked }}</pre>
{% else %}<p>No certificate comes with this network.</p>{% endif %}
<pre>sha256sum -c SHA256SUMS</pre>
</section>
</main>
</body>
</html>
"""
