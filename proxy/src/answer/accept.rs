//! Whether a client would rather read a page than a problem document (RFC 9110 section 12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

/// The values of `Accept`.
pub(crate) fn lines(request: &HeaderMap) -> impl Iterator<Item = &str> {
    request.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok())
}

/// Whether HTML weighs more than JSON in these values of `Accept`. Who takes anything, as tools do, gets JSON.
pub(crate) fn prefers_html<'a>(accept: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut html, mut json) = (Weight::default(), Weight::default());
    for line in accept {
        for range in line.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality =
                parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q="))).map_or(1_000, quality);
            match kind.as_str() {
                "text/html" | "application/xhtml+xml" => html.take(3, quality),
                "text/*" => html.take(2, quality),
                "application/problem+json" | "application/json" => json.take(3, quality),
                "application/*" => json.take(2, quality),
                "*/*" => {
                    html.take(1, quality);
                    json.take(1, quality);
                }
                _ => {}
            }
        }
    }
    html.thousandths > json.thousandths
}

/// The weight of a type: that of the most specific range that covers it.
#[derive(Default)]
struct Weight {
    specific: u8,
    thousandths: u16,
}

impl Weight {
    fn take(&mut self, specific: u8, thousandths: u16) {
        if specific > self.specific {
            *self = Self { specific, thousandths };
        } else if specific == self.specific {
            self.thousandths = self.thousandths.max(thousandths);
        }
    }
}

/// `0.8` → 800. What is no number weighs nothing.
fn quality(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: u16 = match whole {
        "0" => 0,
        "1" => 1_000,
        _ => return 0,
    };
    let digits = fraction.bytes().take(3).take_while(u8::is_ascii_digit);
    let fraction: u16 = digits.zip([100, 10, 1]).map(|(d, unit)| u16::from(d - b'0') * unit).sum();
    (whole + fraction).min(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers(accept: &'static str) -> bool {
        prefers_html([accept])
    }

    #[test]
    fn a_browser_gets_a_page_and_a_tool_a_document() {
        assert!(prefers("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"));
        assert!(prefers("text/html"));
        assert!(!prefers("*/*"));
        assert!(!prefers("application/json, text/plain, */*"));
        assert!(!prefers("application/json, text/html;q=0.5"));
        assert!(prefers("application/json;q=0.5, text/html;q=0.6"));
        assert!(!prefers("text/html;q=0, */*"));
        assert!(!prefers("text/html;q=x"));
        assert!(!prefers_html(lines(&HeaderMap::new())));
    }
}
