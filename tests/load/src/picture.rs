//! A picture of a few figures: horizontal bars, as SVG that reads on light and dark pages.

use std::fmt::Write;

/// One bar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
}

const WIDTH: f64 = 720.0;
/// Where bars begin: room for the names.
const LEFT: f64 = 150.0;
/// Room for the figure behind the longest bar.
const RIGHT: f64 = 80.0;
const TOP: f64 = 44.0;
const ROW: f64 = 32.0;

/// Bars from 0 on, below a title.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    let longest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "a few bars")]
    let height = TOP + ROW * bars.len() as f64 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"14\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"26\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    let mut y = TOP;
    for Bar { name, value } in bars {
        let length = (WIDTH - LEFT - RIGHT) * value.max(0.0) / longest;
        let (middle, end) = (y + 15.0, LEFT + length + 8.0);
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"20\" fill=\"#2f6f9f\"/>\n\
             <text x=\"{end:.1}\" y=\"{middle}\">{value:.1}</text>\n",
            LEFT - 10.0,
            escaped(name),
        );
        y += ROW;
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_takes_the_room_and_the_others_their_part_of_it() {
        let svg = bars("a < b", &[Bar { name: "one", value: 50.0 }, Bar { name: "two", value: 100.0 }]);
        assert!(
            svg.contains("a &lt; b") && svg.contains("width=\"245.0\"") && svg.contains("width=\"490.0\""),
            "{svg}"
        );
        assert!(svg.contains(">50.0</text>") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
