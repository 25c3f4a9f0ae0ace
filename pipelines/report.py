"""An evaluation for a reader: a table for the screen, and report.html, which needs nothing from elsewhere.

Both show ids, names and numbers, never texts.
"""

import html as escaping
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

OURS = "fusefeed"
SHOWN = ("recall@10", "recall@20", "recall@50", "ndcg@10", "ndcg@20", "map@10", "hit_rate@10", "mrr@10")
ON_SCREEN = ("recall@20", "ndcg@10", "map@10", "hit_rate@10")
SLICE_MEASURES = ("recall@20", "ndcg@10")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
tr.ours { font-weight: bold; background: #eef5ee }
td small { color: #666; font-weight: normal }
.wide { overflow-x: auto }
"""


def table(evaluation: Mapping[str, Any]) -> str:
    """The main table as plain text, best recall@20 first, with what there is to say of it."""
    lines = [split_line(evaluation)]
    if "methods" in evaluation:
        rows = [(name, *(_text(of[measure]) for measure in ON_SCREEN)) for name, of in _measures(evaluation)]
        head = ("method", *ON_SCREEN)
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  ".join(cells))
    lines += [f"not measured: {name}: {why}" for name, why in evaluation.get("skipped", {}).items()]
    lines += [f"note: {note}" for note in evaluation.get("notes", [])]
    return "\n".join(lines)


def split_line(evaluation: Mapping[str, Any]) -> str:
    """How the split was made, in one line."""
    split = evaluation["split"]
    share = f"{split['fraction']:.0%} " if "fraction" in split else ""
    how = {
        "time": f"all after {split.get('cut')}",
        "user": f"the newest {share}of each user's interactions",
        "cold": f"all interactions with {share}of the posts, which are ranked among themselves",
        "holdout": "a table of its own",
    }[split["kind"]]
    line = f"backtest ({split['kind']} split): held out is {how}"
    if "about" not in evaluation:
        return line
    about = evaluation["about"]
    return f"{line}; {about['users']:,} users, {about['targets']:,} posts to find of {about['eligible_posts']:,}"


def _measures(evaluation: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(method, its measures), best first."""
    found = [(name, of["measures"]) for name, of in evaluation["methods"].items()]
    return sorted(found, key=lambda entry: (-entry[1]["recall@20"]["mean"], entry[0]))


def _text(interval: Mapping[str, float]) -> str:
    half = (interval["high"] - interval["low"]) / 2
    return f"{interval['mean']:.4f} ±{half:.4f}"


def html(evaluation: Mapping[str, Any]) -> str:
    """The report as one page."""
    title = f"Evaluation of run {evaluation['run']}"
    parts = [f"<h1>{_escape(title)}</h1>", f"<p>{_escape(split_line(evaluation))}</p>"]
    parts += [f"<p>{_escape(note)}</p>" for note in evaluation.get("notes", [])]
    if "methods" in evaluation:
        parts += list(_sections(evaluation))
    skipped = evaluation.get("skipped", {})
    if skipped:
        rows = "".join(f"<li>{_escape(name)}: {_escape(why)}</li>" for name, why in skipped.items())
        parts.append(f"<h2>Not measured</h2><ul>{rows}</ul>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _sections(evaluation: Mapping[str, Any]) -> Iterator[str]:
    measures = _measures(evaluation)
    methods = evaluation["methods"]
    order = [name for name, _ in measures]
    yield "<h2>Hits</h2><p>Means over users with 95% confidence intervals (bootstrap over users).</p>"
    yield _table(SHOWN, [(name, [_interval(of[measure]) for measure in SHOWN]) for name, of in measures])
    yield "<h2>Recall@20</h2>" + _bars([(name, of["recall@20"]) for name, of in measures])
    others = [name for name in order if name != OURS]
    yield "<h2>Lead</h2><p>How much better fusefeed is than each, by the same users.</p>"
    yield _table(SHOWN, [(name, [_interval(methods[name]["lead"][measure]) for measure in SHOWN]) for name in others])
    names = list(methods[OURS]["lists"])
    yield "<h2>Lists</h2><p>Share of the catalogue shown, Gini index, long tail, novelty in bits, diversity.</p>"
    yield _table(names, [(name, [f"{methods[name]['lists'][column]:.4f}" for column in names]) for name in order])
    for measure in SLICE_MEASURES:
        slices = {label: users for label, users in evaluation["slices"].items() if users}
        yield f"<h2>Slices: {_escape(measure)}</h2>"
        heads = [f"{label} ({users:,} users)" for label, users in slices.items()]
        yield _table(
            heads, [(name, [_interval(methods[name]["slices"][label][measure]) for label in slices]) for name in order]
        )


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table; the cells are HTML already, names and heads are not."""
    head = "".join(f"<th>{_escape(name)}</th>" for name in ("", *heads))
    lines = []
    for name, cells in rows:
        kind = ' class="ours"' if name == OURS else ""
        lines.append(f"<tr{kind}><td>{_escape(name)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>\n' + "\n".join(lines) + "\n</table></div>"


def _interval(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.4f} <small>{interval['low']:.4f} to {interval['high']:.4f}</small>"


def _bars(rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Bars with their intervals, as a picture (SVG)."""
    most = max((interval["high"] for _, interval in rows), default=0) or 1
    shapes = []
    for number, (name, interval) in enumerate(rows):
        top = 26 * number
        width, low, high = (500 * interval[key] / most for key in ("mean", "low", "high"))
        colour = "#3a7d44" if name == OURS else "#9db4c0"
        shapes.append(
            f'<text x="0" y="{top + 17}">{_escape(name)}</text>'
            f'<rect x="200" y="{top + 4}" width="{width:.1f}" height="18" fill="{colour}"/>'
            f'<line x1="{200 + low:.1f}" x2="{200 + high:.1f}" y1="{top + 13}" y2="{top + 13}" stroke="#222"/>'
            f'<text x="{210 + high:.1f}" y="{top + 17}">{interval["mean"]:.4f}</text>'
        )
    height = 26 * len(rows)
    return f'<svg width="800" height="{height}" font-size="14" role="img">{"".join(shapes)}</svg>'


def _escape(value: Any) -> str:
    return escaping.escape(str(value))
