//! A school's colours and font as CSS.
//!
//! The theme is an operator's words. Nothing of it reaches CSS as written: colours become three numbers, fonts a list of plain
//! names, addresses are of https or of this site.

use std::fmt;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::context::Theme;
use crate::context::admission::Tenant;

/// Colours of a school that chose none.
const PRIMARY: Color = Color { red: 0x1f, green: 0x5f, blue: 0x8b };
const SECONDARY: Color = Color { red: 0xe8, green: 0x9c, blue: 0x31 };

/// Most fonts in a list, and the longest name of one in bytes.
const MAX_FONTS: usize = 6;
const MAX_FONT_NAME: usize = 40;

/// A theme that is safe to write into a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    primary: Color,
    secondary: Color,
    fonts: Vec<String>,
    pub(super) logo: Option<String>,
    pub(super) favicon: Option<String>,
}

impl Look {
    /// What can be used of a theme; the rest is as if it were absent.
    pub(super) fn of(theme: &Theme) -> Self {
        let color = |text: &Option<String>| text.as_deref().and_then(Color::parse);
        Self {
            primary: color(&theme.primary_color).unwrap_or(PRIMARY),
            secondary: color(&theme.secondary_color).unwrap_or(SECONDARY),
            fonts: theme.font_family.as_deref().map(fonts).unwrap_or_default(),
            logo: theme.logo_url.as_deref().filter(|url| is_picture(url)).map(str::to_owned),
            favicon: theme.favicon_url.as_deref().filter(|url| is_picture(url)).map(str::to_owned),
        }
    }

    /// Custom properties that the app's style sheet uses.
    fn css(&self) -> String {
        let mut fonts: String = self.fonts.iter().map(|font| format!("\"{font}\", ")).collect();
        fonts.push_str("system-ui, sans-serif");
        format!(
            ":root {{\n  --primary: {};\n  --on-primary: {};\n  --secondary: {};\n  --on-secondary: {};\n  --font: {fonts};\n}}\n",
            self.primary,
            self.primary.readable(),
            self.secondary,
            self.secondary.readable(),
        )
    }

    /// Changes with the theme, so that browsers may keep it for a while.
    pub(super) fn version(&self) -> String {
        format!("{:08x}", crc32fast::hash(self.css().as_bytes()))
    }
}

/// The theme as a style sheet: inline styles are forbidden on our pages.
pub(crate) async fn css(Tenant(tenant): Tenant) -> Response {
    let headers = [(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "private, max-age=300")];
    (headers, Look::of(tenant.theme()).css()).into_response()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Color {
    red: u8,
    green: u8,
    blue: u8,
}

impl Color {
    /// `#rgb` or `#rrggbb`, and nothing else that CSS calls a colour.
    fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix('#').filter(|hex| hex.bytes().all(|c| c.is_ascii_hexdigit()))?;
        let number = u32::from_str_radix(hex, 16).ok()?;
        let [_, red, green, blue] = match hex.len() {
            6 => number.to_be_bytes(),
            3 => [0, nibble(number >> 8), nibble(number >> 4), nibble(number)],
            _ => return None,
        };
        Some(Self { red, green, blue })
    }

    /// Black or white, whichever can be read on this colour (WCAG 2.2, relative luminance).
    fn readable(self) -> &'static str {
        let linear = |channel: u8| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        let luminance = 0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue);
        if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) { "#000000" } else { "#ffffff" }
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

/// The lowest four bits, twice: `f` is `ff`.
fn nibble(number: u32) -> u8 {
    let digit = number.to_be_bytes()[3] & 0x0f;
    digit << 4 | digit
}

/// The plain names of a font list; quotes go, and what is not a name is left out.
fn fonts(list: &str) -> Vec<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let names = list.split(',').map(|name| name.trim().trim_matches(['"', '\'']));
    let usable = names.filter(|name| !name.is_empty() && name.len() <= MAX_FONT_NAME && name.chars().all(plain));
    usable.take(MAX_FONTS).map(str::to_owned).collect()
}

/// A picture over HTTPS, or one of this site. `//host/…` is another site's, and `javascript:` is neither.
fn is_picture(url: &str) -> bool {
    let own = url.starts_with('/') && !url.starts_with("//") && !url.starts_with("/\\");
    (url.starts_with("https://") || own)
        && url.len() <= 2048
        && !url.chars().any(|c| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(theme: Theme) -> Look {
        Look::of(&theme)
    }

    #[test]
    fn colours_are_three_or_six_hex_digits() {
        assert_eq!(Color::parse("#1f6f43").map(|color| color.to_string()).as_deref(), Some("#1f6f43"));
        assert_eq!(Color::parse("#fA0").map(|color| color.to_string()).as_deref(), Some("#ffaa00"));
        for wrong in ["", "#", "red", "#12345", "#1234567", "#+1f", "1f6f43", "#1f6f43;}", "url(x)", "#ééé"] {
            assert_eq!(Color::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn text_on_a_colour_can_be_read() {
        assert_eq!(Color::parse("#ffeb3b").unwrap().readable(), "#000000");
        assert_eq!(Color::parse("#1f6f43").unwrap().readable(), "#ffffff");
    }

    #[test]
    fn nothing_of_a_hostile_theme_reaches_the_style_sheet() {
        let hostile = "red;} body{display:none} /*</style><script>alert(1)</script>".to_owned();
        let theme = Theme {
            primary_color: Some(hostile.clone()),
            secondary_color: Some(hostile.clone()),
            font_family: Some(hostile.clone()),
            logo_url: Some("javascript:alert(1)".to_owned()),
            favicon_url: Some("//evil.example/x.png".to_owned()),
        };
        assert_eq!(look(theme), look(Theme::default()));
    }

    #[test]
    fn fonts_are_a_list_of_plain_names() {
        assert_eq!(fonts("'Open Sans', Arial, x;y, \"Noto Serif\""), ["Open Sans", "Arial", "Noto Serif"]);
        let theme = Theme { font_family: Some("Open Sans".to_owned()), ..Theme::default() };
        assert!(look(theme).css().contains("--font: \"Open Sans\", system-ui"));
    }
}
