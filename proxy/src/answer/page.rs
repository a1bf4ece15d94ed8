//! Error pages: the tenant's name and colours, the status, the request's identifier; nothing else.

use std::fmt::{self, Display, Write};

use schoolgate_config::model::Tenant;
use serde::Serialize;

use crate::fault::Row;
use crate::forward::request_id::RequestId;

/// What a page of ours may load: nothing but its own style.
pub(crate) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

/// A problem document (RFC 9457).
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    error: &'a str,
    message: &'a str,
    request_id: &'a str,
}

/// The problem document of a fault.
pub(crate) fn problem(row: &Row, message: &str, id: &RequestId) -> String {
    let problem = Problem {
        kind: "about:blank",
        title: row.title,
        status: row.status,
        error: row.code,
        message,
        request_id: id.as_str(),
    };
    // Texts and a number: there is nothing in it that cannot be written.
    serde_json::to_string(&problem).unwrap_or_default()
}

/// The page of a fault.
pub(crate) fn html(row: &Row, message: &str, id: &RequestId, tenant: Option<&Tenant>) -> String {
    let mut page = String::with_capacity(1_600);
    let name = tenant.map_or("", |t| t.name.as_str());
    let primary = tenant.and_then(|t| t.theme.primary_color).map_or_else(|| "#334155".to_owned(), |c| c.to_string());
    let heading = if name.is_empty() { row.title } else { name };
    let written = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} · {heading}</title>\n<style>\n\
         :root{{color-scheme:light dark}}\n\
         body{{margin:0;min-height:100vh;display:grid;place-items:center;font:1rem/1.5 system-ui,sans-serif}}\n\
         main{{max-width:34rem;margin:1rem;padding:2rem;border-top:.4rem solid {primary}}}\n\
         h1{{margin:0 0 .5rem;font-size:1.5rem}}\n\
         small{{opacity:.7}}\n\
         </style>\n</head>\n<body>\n<main>\n<h1>{heading}</h1>\n<p>{message}</p>\n\
         <p><small>{status} {code} · {id}</small></p>\n</main>\n</body>\n</html>\n",
        title = Escaped(row.title),
        heading = Escaped(heading),
        message = Escaped(message),
        status = row.status,
        code = Escaped(row.code),
    );
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
    page
}

/// Text as HTML shows it, inside elements and quoted attributes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    fn tenant(name: &str) -> Tenant {
        serde_json::from_value(serde_json::json!({
            "id": "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV", "slug": "greenhill", "name": name, "state": "suspended",
            "plan": "basic", "pool": "shared", "theme": {"primary_color": "#1f6f43"},
        }))
        .expect("a tenant")
    }

    #[test]
    fn every_fault_is_a_problem_document() {
        for fault in Fault::ALL {
            let id = RequestId::new(1);
            let problem: serde_json::Value =
                serde_json::from_str(&problem(&fault.row(), fault.row().message, &id)).expect("JSON");
            assert_eq!(problem["error"], fault.code());
            assert_eq!(problem["status"], fault.status());
            assert_eq!(problem["request_id"], id.as_str());
            assert!(problem["message"].as_str().is_some_and(|m| !m.is_empty()));
            assert!(problem["title"].is_string() && problem["type"] == "about:blank");
        }
    }

    #[test]
    fn every_fault_is_a_page_in_the_schools_name_and_colour() {
        for fault in Fault::ALL {
            let id = RequestId::new(1);
            let page = html(&fault.row(), fault.row().message, &id, Some(&tenant("Greenhill")));
            for part in ["Greenhill", "#1f6f43", fault.code(), id.as_str()] {
                assert!(page.contains(part), "{part} is missing for {fault:?}");
            }
        }
    }

    #[test]
    fn a_schools_name_cannot_become_markup() {
        let page = html(
            &Fault::Maintenance.row(),
            "Back at <script>alert(1)</script>",
            &RequestId::new(1),
            Some(&tenant("\"><img src=x onerror='x'>&")),
        );
        assert!(page.contains("Back at &lt;script&gt;alert(1)&lt;/script&gt;"), "an operator's words are text");
        assert!(!page.contains("<img") && !page.contains("'x'"));
        assert!(page.contains("&quot;&gt;&lt;img src=x onerror=&#39;x&#39;&gt;&amp;"));
    }
}
