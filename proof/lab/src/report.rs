//! All claims on one page of HTML that needs nothing else.

use std::fmt::Write;

use crate::claim::{Findings, number};
use crate::judge::{Judgement, Verdict};
use crate::plot::escape;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d5dae0;--paper:#fff;--good:#1a7f37;--bad:#b42318;\
--open:#8a6100}\
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa4ae;--line:#3c434b;--paper:#14171a;--good:#5fd07a;\
--bad:#ff8a7a;--open:#e3b341}}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:54rem;\
margin:2rem auto;padding:0 1rem}\
h2{border-top:1px solid var(--line);padding-top:1.5rem;margin-top:2.5rem}\
.soft{color:var(--soft)}.holds{color:var(--good)}.fails{color:var(--bad)}.not-judged{color:var(--open)}\
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .75rem;border-bottom:1px solid var(--line);\
text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.9em}\
svg.plot{width:100%;height:auto;border:1px solid var(--line);border-radius:6px}";

/// The page. `version` names the build that ran them.
#[must_use]
pub fn html(judgements: &[Judgement], version: &str) -> String {
    let holding = judgements.iter().filter(|one| one.verdict() == Verdict::Holds).count();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Archipel: the lab</title><style>{STYLE}</style></head><body>\n\
         <h1>The lab</h1>\n<p>{holding} of {} claims hold. Each was run on the production code in virtual time, \
         with a negative control that the same judge must refuse. The same seed gives the same figures and trace \
         hash. <span class=\"soft\">archipel {}</span></p>\n<table><tr><th>claim</th><th>verdict</th></tr>",
        judgements.len(),
        escape(version)
    );
    // Writing to a string does not fail, here and below.
    for one in judgements {
        let name = one.claim.name;
        let _ = write!(page, "<tr><td><a href=\"#{name}\">{name}</a></td><td>{}</td></tr>", verdict(one));
    }
    page.push_str("</table>\n");
    for one in judgements {
        section(&mut page, one);
    }
    page.push_str("</body></html>\n");
    page
}

fn verdict(one: &Judgement) -> String {
    let word = one.verdict().word();
    format!("<strong class=\"{}\">{word}</strong>", word.replace(' ', "-"))
}

fn section(page: &mut String, one: &Judgement) {
    let name = one.claim.name;
    let _ = write!(
        page,
        "<h2 id=\"{name}\">{name}: {}</h2>\n<p>{}</p>\n<p class=\"soft\">{}</p>\n",
        verdict(one),
        escape(one.claim.statement),
        escape(one.claim.reference)
    );
    figures(page, &one.findings);
    if let Some(plot) = &one.findings.plot {
        page.push_str(&plot.svg());
    }
    let caught = if one.control.hold() { "passed, and should not have" } else { "refused, as it must be" };
    let _ = write!(page, "<h3>Control: {caught}</h3>\n<p>{}</p>\n", escape(one.claim.control.statement));
    figures(page, &one.control);
    let told: String = one.values.iter().map(|(name, value)| format!(" --{name} {value}")).collect();
    let _ = writeln!(
        page,
        "<p class=\"soft\">Again: <code>archipel lab run {name} --seed {}{}</code><br>trace hash <code>{:016x}</code></p>",
        one.seed,
        escape(&told),
        one.findings.trace_hash
    );
}

fn figures(page: &mut String, findings: &Findings) {
    page.push_str("<table><tr><th>figure</th><th>value</th><th></th><th>bound</th><th></th></tr>");
    for figure in &findings.figures {
        let (class, word) = match (figure.bound, figure.holds()) {
            (crate::Bound::Told, _) => ("soft", ""),
            (_, true) => ("holds", "holds"),
            (_, false) => ("fails", "fails"),
        };
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{word}</td></tr>",
            escape(figure.name),
            number(figure.value),
            escape(figure.unit),
            escape(&figure.bound.to_string())
        );
    }
    page.push_str("</table>\n");
}
