//! The index page: one HTML document without scripts.
//!
//! In: [`IndexData`] and the list of routes. Out: HTML. Invariant: text of clients (names, labels, refused
//! lines) reaches the page only through [`Text`], as a text node; never as markup, attribute or address.

use super::backend::{IndexData, Laws, ListenerInfo, RecentItem, SeriesInfo, SourceInfo};
use crate::event::Timestamp;
use crate::event::time::rfc3339;
use std::fmt::{self, Display, Write};

/// Where the style sheet stands: a route, because the content security policy admits no inline style.
pub(super) const STYLE_PATH: &str = "/assets/style.css";
/// The style sheet, light and dark.
pub(super) const STYLE: &str = include_str!("assets/style.css");
/// Items of each list on the page.
const ROWS_MAX: usize = 20;

/// Text as a text node. Control characters and those that change the direction of writing are shown as
/// `\u{..}`: they could make a line look like another.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_control() || is_bidirectional(c) => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Characters of Unicode's bidirectional algorithm (UAX #9 §2), and the invisible ones used with them.
fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The page.
pub(super) fn render(data: &IndexData, routes: &[(&str, &str, &str)]) -> String {
    let mut page = String::with_capacity(16 * 1024);
    write_page(&mut page, data, routes).expect("writing into a String cannot fail");
    page
}

fn write_page(page: &mut String, data: &IndexData, routes: &[(&str, &str, &str)]) -> fmt::Result {
    let name = Text(&data.pipeline);
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta http-equiv=\"refresh\" content=\"10\">\
         <title>{name} · hydrograph</title><link rel=\"stylesheet\" href=\"{STYLE_PATH}\"></head><body>\n\
         <header><h1>{name}</h1><p class=\"sub\">hydrograph {}</p></header>\n",
        Text(&data.version),
    )?;
    let (inputs_per_second, dropped) = data.sources.iter().fold((0.0, 0u64), |(rate, dropped), source| {
        (rate + source.inputs_per_second, dropped.saturating_add(source.dropped))
    });
    page.push_str("<dl class=\"tiles\">");
    tile(page, "up", &duration(data.uptime_seconds), "")?;
    tile(page, "inputs a second", &rate(inputs_per_second), "")?;
    tile(page, "live series", &grouped(data.series_count), "")?;
    tile(page, "dropped", &grouped(dropped), if dropped > 0 { "bad" } else { "" })?;
    tile(page, "store", &bytes(data.store.bytes), "")?;
    page.push_str("</dl>\n<main>\n");
    send_section(page, data)?;
    sources_section(page, &data.sources)?;
    newest_section(page, &data.newest, data)?;
    rejects_section(page, &data.rejects, data.now)?;
    laws_section(page, &data.laws)?;
    routes_section(page, routes)?;
    write!(
        page,
        "</main>\n<footer>store <code>{}</code> · commit {} · {} · reloads every 10 s</footer>\n</body></html>\n",
        Text(&data.store.path),
        grouped(data.store.commit),
        rfc3339(Timestamp(data.now.0 - data.now.0.rem_euclid(1_000_000_000))),
    )
}

fn tile(page: &mut String, term: &str, value: &str, class: &str) -> fmt::Result {
    write!(page, "<div><dt>{term}</dt><dd class=\"{class}\">{value}</dd></div>")
}

fn send_section(page: &mut String, data: &IndexData) -> fmt::Result {
    page.push_str("<section><h2>Send</h2>");
    if data.listeners.is_empty() {
        page.push_str("<p class=\"none\">No listeners: this pipeline takes samples in its own process only.</p>");
    }
    page.push_str("<ul class=\"listeners\">");
    for ListenerInfo { source, kind, address, hint, skipped } in &data.listeners {
        write!(
            page,
            "<li><div class=\"where\"><b>{}</b> <code>{}</code> <span class=\"dim\">source {}</span></div>",
            Text(kind),
            Text(address),
            Text(source),
        )?;
        match skipped {
            Some(reason) => write!(page, "<div class=\"warn\">skipped: {}</div>", Text(reason))?,
            None if hint.is_empty() => {}
            None => write!(page, "<pre>{}</pre>", Text(hint))?,
        }
        page.push_str("</li>");
    }
    page.push_str(
        "</ul><p>Or by hand: <code>hydrograph send 'checkout.latency:42|ms|#region:eu'</code></p></section>\n",
    );
    Ok(())
}

fn sources_section(page: &mut String, sources: &[SourceInfo]) -> fmt::Result {
    page.push_str(
        "<section><h2>Sources</h2><div class=\"scroll\"><table><thead><tr><th>source<th class=\"n\">inputs/s<th class=\"n\">inputs\
         <th class=\"n\">rejected<th class=\"n\">samples<th class=\"n\">dropped</tr></thead><tbody>",
    );
    for source in sources {
        write!(
            page,
            "<tr><td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n{}\">{}<td class=\"n\">{}<td class=\"n{}\">{}</tr>",
            Text(&source.name),
            rate(source.inputs_per_second),
            grouped(source.inputs),
            if source.rejected > 0 { " warn" } else { "" },
            grouped(source.rejected),
            grouped(source.samples),
            if source.dropped > 0 { " bad" } else { "" },
            grouped(source.dropped),
        )?;
    }
    page.push_str("</tbody></table></div></section>\n");
    Ok(())
}

fn newest_section(page: &mut String, newest: &[SeriesInfo], data: &IndexData) -> fmt::Result {
    page.push_str("<section><h2>Newest series</h2>");
    if newest.is_empty() {
        page.push_str("<p class=\"none\">None yet. Send the line above and reload.</p></section>\n");
        return Ok(());
    }
    page.push_str("<div class=\"scroll\"><table><tbody>");
    for series in newest.iter().take(ROWS_MAX) {
        write!(
            page,
            "<tr><td><code>{}</code><td>{}<td class=\"n dim\">{}</tr>",
            Text(&series.series),
            Text(&series.kind),
            ago(series.created, data.now),
        )?;
    }
    page.push_str("</tbody></table></div></section>\n");
    Ok(())
}

fn rejects_section(page: &mut String, rejects: &[RecentItem], now: Timestamp) -> fmt::Result {
    page.push_str("<section><h2>Recent rejects</h2>");
    if rejects.is_empty() {
        page.push_str("<p class=\"none\">None. Every input was understood.</p></section>\n");
        return Ok(());
    }
    page.push_str("<ul class=\"rejects\">");
    for item in rejects.iter().take(ROWS_MAX) {
        write!(
            page,
            "<li><code>{}</code><div><b class=\"warn\">{}</b> {} <span class=\"dim\">· {} · {}</span></div></li>",
            Text(&item.text),
            Text(&item.reason),
            Text(&item.hint),
            Text(&item.source),
            ago(item.time, now),
        )?;
    }
    page.push_str("</ul></section>\n");
    Ok(())
}

fn laws_section(page: &mut String, laws: &Laws) -> fmt::Result {
    let (class, verdict) =
        if laws.hold() { ("good", "Both hold.") } else { ("bad", "They do not hold: this is a defect.") };
    writeln!(
        page,
        "<section><h2>Conservation</h2><p><code>{}</code></p><p><code>{}</code></p>\
         <p class=\"{class}\">{verdict} <span class=\"dim\">All sources but internal and host.</span></p></section>",
        Text(&laws.inputs_line()),
        Text(&laws.samples_line()),
    )
}

fn routes_section(page: &mut String, routes: &[(&str, &str, &str)]) -> fmt::Result {
    page.push_str("<section><h2>Routes</h2><div class=\"scroll\"><table><tbody>");
    for (method, path, what) in routes {
        let is_link = *method == "GET" && !path.contains('{');
        let path = if is_link {
            format!("<a href=\"{path}\"><code>{path}</code></a>")
        } else {
            format!("<code>{path}</code>")
        };
        write!(page, "<tr><td class=\"dim\">{method}<td>{path}<td>{}</tr>", Text(what))?;
    }
    page.push_str("</tbody></table></div></section>\n");
    Ok(())
}

/// A whole number with thin groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A rate with what a reader can use: 0, 0.4, 12, 1 200 000.
fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 10.0 { format!("{per_second:.1}") } else { grouped(per_second.round() as u64) }
}

fn bytes(count: u64) -> String {
    const STEPS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB")];
    for (step, word) in STEPS {
        if count >= step {
            return format!("{:.1} {word}", count as f64 / step as f64);
        }
    }
    format!("{count} B")
}

fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3_600 % 24),
    }
}

fn ago(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.0.saturating_sub(time.0) as f64 / 1e9;
    if seconds < 1.0 { "now".to_owned() } else { format!("{} ago", duration(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        for (input, expected) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x'", "&quot; onload=&#39;x&#39;"),
            ("a&amp;b", "a&amp;amp;b"),
            ("line\nbreak\r\0", "line\\nbreak\\u{d}\\u{0}"),
            ("abc\u{202e}cba\u{2066}", "abc\\u{202e}cba\\u{2066}"),
            ("größe 測量 ✓", "größe 測量 ✓"),
        ] {
            assert_eq!(Text(input).to_string(), expected);
        }
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(rate(0.0), "0");
        assert_eq!(rate(0.44), "0.4");
        assert_eq!(rate(12.4), "12");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(61_440), "61.4 KB");
        assert_eq!(duration(59.9), "59 s");
        assert_eq!(duration(3_725.0), "1 h 2 min");
        assert_eq!(duration(-1.0), "0 s");
        assert_eq!(ago(Timestamp(5_000_000_000), Timestamp(8_500_000_000)), "3 s ago");
        assert_eq!(ago(Timestamp(9), Timestamp(8)), "now");
    }
}
