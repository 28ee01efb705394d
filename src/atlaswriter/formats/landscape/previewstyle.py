"""Head and style sheet of the preview's page."""

# Nothing may be fetched, and nothing runs.
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style></head>
"""

STYLE = """
:root{color-scheme:dark;--ground:#101318;--card:#171b22;--line:#272d37;--text:#e6e9ee;--soft:#97a1b0;--accent:#7cc4ff}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums;-webkit-font-smoothing:antialiased}
main{max-width:1480px;margin:0 auto;padding:40px 32px 64px}
h1,h2,h3,p,ul,dl,dd,figure{margin:0;padding:0}
h1{font-size:32px;line-height:1.2;font-weight:650;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{font-size:20px;font-weight:600;letter-spacing:-.01em;margin-bottom:4px}
h3{font-size:14px;font-weight:600}
section{margin-top:44px}
section>p{color:var(--soft);max-width:80ch}
ul{list-style:none}
.kicker{color:var(--accent);font-size:12px;font-weight:600;letter-spacing:.08em;text-transform:uppercase}
.chips{display:flex;flex-wrap:wrap;gap:4px 18px;margin-top:8px;color:var(--soft)}
.counts{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:1px;margin-top:26px;
background:var(--line);border:1px solid var(--line);border-radius:10px;overflow:hidden}
.counts div{background:var(--card);padding:14px 18px}
.counts dt{color:var(--soft);font-size:13px}
.counts dd{font-size:clamp(17px,1.2vw + 12px,24px);font-weight:600;letter-spacing:-.02em}
.checks{display:flex;flex-wrap:wrap;gap:6px 24px;margin-top:16px;font-size:14px;color:var(--soft)}
.checks li::before{content:"✓";color:#5fd08a;font-weight:700;margin-right:8px}
.checks .note{color:#f3c969}
.checks .note::before{content:"!";color:#f3c969}
.grid{display:grid;gap:24px;margin-top:16px;align-items:start}
.tall{grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr))}
.wide,.details{grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr))}
.grid figure:has(.zoom:checked){grid-column:1/-1}
.grid figure:has(.zoom:checked) .stage{max-width:none!important;cursor:zoom-out}
figure,.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px;min-width:0}
.top{display:flex;justify-content:space-between;align-items:baseline;gap:12px;margin-bottom:10px}
.toggles{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:13px;color:var(--soft)}
.toggles label{cursor:pointer;white-space:nowrap}
.toggles input{accent-color:var(--accent);margin:0 6px 0 0;vertical-align:-1px}
.stage{display:block;position:relative;width:100%;margin:0 auto;background:#000;border-radius:6px;overflow:hidden;
cursor:zoom-in}
.stage img{position:absolute;inset:0;width:100%;height:100%;display:block}
.veil{opacity:.55}
.sharp img{image-rendering:pixelated}
.zoom{position:absolute;opacity:0;pointer-events:none}
.stage:has(.zoom:focus-visible){outline:2px solid var(--accent)}
figure:has(.t0:not(:checked)) .l0,figure:has(.t1:not(:checked)) .l1,figure:has(.t2:not(:checked)) .l2{
visibility:hidden}
.scale{position:absolute;left:12px;bottom:12px;border-bottom:3px solid #fff;color:#fff;font-size:12px;font-weight:600;
line-height:1.5;text-align:center;white-space:nowrap;text-shadow:0 0 3px #000,0 0 3px #000,0 0 2px #000;
filter:drop-shadow(0 0 1px #000)}
.box{position:absolute;border:1.5px solid #fff;box-shadow:0 0 0 1px #000a;min-width:8px;min-height:8px}
.box b{position:absolute;left:4px;top:1px;font-size:12px;line-height:1.3;color:#fff;
text-shadow:0 0 3px #000,0 0 3px #000,0 0 2px #000}
figcaption{margin-top:10px;font-size:13px;color:var(--soft)}
.legend{display:grid;grid-template-columns:repeat(auto-fill,minmax(120px,1fr));gap:3px 16px;margin-top:10px;
font-size:13px}
.legend li{display:flex;align-items:baseline;gap:8px;min-width:0}
.legend i{flex:none;width:10px;height:10px;border-radius:3px;border:1px solid #fff3}
.legend span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.legend em{margin-left:auto;font-style:normal;color:var(--soft)}
.genes .legend{display:flex;flex-wrap:wrap;gap:4px 22px}
.genes .legend i{border-radius:50%}
.more{margin-top:8px;font-size:13px;color:var(--soft)}
.bar{margin-top:12px;font-size:12px;color:var(--soft)}
.bar i{display:block;height:10px;border-radius:3px;border:1px solid #fff2}
.ticks{position:relative;height:20px}
.ticks span{position:absolute;top:2px;transform:translateX(-50%)}
.cards{columns:3 400px;column-gap:24px;margin-top:16px}
.card{break-inside:avoid;margin-bottom:24px}
.card h3{margin-bottom:8px}
table{width:100%;border-collapse:collapse;font-size:13px}
th{font-weight:400;color:var(--soft);text-align:right;padding:0 0 6px 12px}
td{padding:5px 0 5px 12px;border-top:1px solid var(--line);text-align:right;white-space:nowrap;vertical-align:middle}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal;overflow-wrap:anywhere}
td:has(>u){width:30%;text-align:left}
td>u{display:block;height:8px;min-width:1px;border-radius:2px;background:var(--accent);opacity:.75}
.dot{display:inline-block;width:10px;height:10px;border-radius:3px;border:1px solid #fff3;margin-right:8px}
.thumb{display:block;flex:none;max-width:60px;max-height:72px;border-radius:4px}
.channel{display:flex;align-items:center;gap:10px}
.channel span{display:flex;align-items:center;min-width:72px}.channel .dot{flex:none;margin-right:6px}
.matrix{display:inline-block;text-align:right}
code{font:12px ui-monospace,Menlo,Consolas,monospace;margin-left:10px}
@media (max-width:600px){main{padding:24px 14px 48px}h1{font-size:25px}}
@media print{body{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
