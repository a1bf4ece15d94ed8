//! What `up` prints when it is ready: where everything is, and a line to try.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use schoolgate_control_api::ADMIN_TOKEN;

use super::data_dir::Addresses;
use super::demo;

/// Prints it on standard output.
pub(super) fn print(addresses: &Addresses, data_dir: &Path, with_demo: bool) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text(addresses, data_dir, with_demo).as_bytes()) {
        // Nobody reads: the gateway runs all the same.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn text(addresses: &Addresses, data_dir: &Path, with_demo: bool) -> String {
    let mut text = "\nSchoolgate is ready.\n\n".to_owned();
    let ca = quoted(&data_dir.join("ca.pem"));
    if let (Some(https), true) = (addresses.https, with_demo) {
        for school in &demo::SCHOOLS {
            let url = format!("https://{}.localhost:{}/", school.slug, https.port());
            text.push_str(&format!("  {:<22} {url:<36} plan {}, pool {}\n", school.name, school.plan, school.pool));
        }
        let host = "greenhill.localhost";
        let port = https.port();
        text.push_str(&format!("\n  curl --cacert {ca}{} https://{host}:{port}/whoami\n\n", resolve(https, host)));
    }
    if let Some(control) = addresses.control {
        text.push_str(&format!("  control API            http://{control}/api/v1/\n"));
        text.push_str(&format!("  admin token            {}\n", admin_token(data_dir)));
    }
    if let Some(dns) = addresses.dns {
        text.push_str(&format!("  DNS server             {dns} (UDP and TCP)\n"));
    }
    if let Some(status) = addresses.status {
        text.push_str(&format!("  metrics, health        http://{status}/metrics\n"));
    }
    text.push_str(&format!("  CA for browsers        {ca}\n"));
    text.push_str("\nCtrl-C stops all of it.\n\n");
    text
}

/// Where the admin token is, or how to make one.
fn admin_token(data_dir: &Path) -> String {
    let file = data_dir.join(ADMIN_TOKEN);
    let shown = quoted(&file);
    if file.exists() {
        return shown;
    }
    let dir = quoted(data_dir);
    format!(
        "{shown} is gone; make another on this machine:\n  \
         {:<22} schoolgate token create admin --role super-admin --save {shown} --data-dir {dir}",
        ""
    )
}

/// What curl has to be told when the gateway does not listen where `*.localhost` leads.
fn resolve(https: SocketAddr, host: &str) -> String {
    match https.ip() {
        ip if ip.is_unspecified() || ip.is_loopback() => String::new(),
        IpAddr::V4(ip) => format!(" --resolve {host}:{}:{ip}", https.port()),
        IpAddr::V6(ip) => format!(" --resolve {host}:{}:[{ip}]", https.port()),
    }
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(https: &str) -> Addresses {
        let control = Some("127.0.0.1:8600".parse().unwrap());
        Addresses { https: Some(https.parse().unwrap()), control, ..Addresses::default() }
    }

    #[test]
    fn the_curl_line_names_the_ca_and_a_school() {
        let text = text(&addresses("0.0.0.0:8443"), Path::new("/srv/data"), true);
        assert!(text.contains("  curl --cacert /srv/data/ca.pem https://greenhill.localhost:8443/whoami\n"), "{text}");
        for name in ["Greenhill", "Riverside", "Lincoln", "admin.token"] {
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn a_token_that_is_gone_is_not_named_without_the_way_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let without = text(&addresses("127.0.0.1:1"), dir.path(), false);
        assert!(without.contains("admin.token is gone") && without.contains("schoolgate token create"), "{without}");
        std::fs::write(dir.path().join(ADMIN_TOKEN), "sgk_x_y").unwrap();
        let with = text(&addresses("127.0.0.1:1"), dir.path(), false);
        assert!(with.contains("admin.token\n") && !with.contains("token create"), "{with}");
    }

    #[test]
    fn a_directory_with_a_space_is_quoted() {
        let text = text(&addresses("127.0.0.1:1"), Path::new("/my data"), true);
        assert!(text.contains("--cacert '/my data/ca.pem'"), "{text}");
    }

    #[test]
    fn curl_is_told_where_a_gateway_on_another_address_is() {
        let text = text(&addresses("192.0.2.1:443"), Path::new("d"), true);
        assert!(text.contains("--resolve greenhill.localhost:443:192.0.2.1 https://"), "{text}");
    }
}
